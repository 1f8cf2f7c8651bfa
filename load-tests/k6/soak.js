// Soak: mixed traffic for an hour, with sessions that come and go.
//
//   load-tests/stage k6 run load-tests/k6/soak.js              RATE=100 DURATION_S=3600
//
// Shows what creeps: the stage tells resident memory and descriptors before and after. Some growth in the first minutes is pools
// and caches; with RELOAD_SECONDS=30 the configuration is changed and reloaded all along.

import { call, initialize, rate, request, seconds, thresholds, tools } from './mcp.js';

export const options = {
  scenarios: {
    soak: {
      executor: 'constant-arrival-rate',
      rate: rate(100),
      timeUnit: '1s',
      duration: `${seconds(3600)}s`,
      preAllocatedVUs: 20,
      maxVUs: 100,
    },
  },
  thresholds: { mcp_wrong_answers: thresholds.mcp_wrong_answers },
};

let session;

export default function () {
  if (__ITER % 200 === 0) session = initialize();
  const options = __ITER % 3 === 2 ? { modern: true } : { session };
  switch (__ITER % 12) {
    case 0: return request('tools/list', {}, options);
    case 3: return call(tools.watch(5, 20), options);
    case 5: return call(tools.blob(65536), options);
    case 7: return call(tools.forbidden, Object.assign({ expected: 'error' }, options));
    case 9: return call(tools.fails, Object.assign({ expected: 'error' }, options));
    default: return call(tools.query, options);
  }
}
