// Baseline: the usual traffic at a rate the gateway does not notice. The figures to compare later ones with.
//
//   load-tests/stage k6 run load-tests/k6/baseline.js          RATE=200 DURATION_S=60
//
// Open: calls start on schedule whatever became of those before; one that k6 could not start fails the run. Three of four calls
// in a session, the fourth in the modern era. k6 itself takes several times the CPU of the gateway: its times are for
// comparing runs on one machine. `load-tests/run` measures the gateway.

import { call, initialize, rate, request, seconds, thresholds, tools } from './mcp.js';

export const options = {
  scenarios: {
    baseline: {
      executor: 'constant-arrival-rate',
      rate: rate(200),
      timeUnit: '1s',
      duration: `${seconds(60)}s`,
      preAllocatedVUs: 20,
      maxVUs: 100,
    },
  },
  thresholds: Object.assign({ http_req_duration: ['p(99)<250'] }, thresholds),
};

let session;

export default function () {
  session = session || initialize();
  const options = __ITER % 4 === 3 ? { modern: true } : { session };
  if (__ITER % 20 === 0) request('tools/list', {}, options);
  else if (__ITER % 10 === 1) call(tools.blob(32768), options);
  else call(tools.query, options);
}
