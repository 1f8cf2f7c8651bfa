// Spike: quiet, then at once twenty times as much, then quiet again.
//
//   load-tests/stage k6 run load-tests/k6/spike.js             RATE=2000 (the spike) DURATION_S=30
//
// Shows that a burst is served or waits, that nothing is answered wrongly, and that the quiet after it is as fast as the quiet
// before: compare `http_req_duration{scenario:after}` with `{scenario:before}`.

import { call, initialize, rate, seconds, thresholds, tools } from './mcp.js';

const third = Math.max(1, Math.round(seconds(30) / 3));
const part = (start, perSecond) => ({
  executor: 'constant-arrival-rate',
  startTime: `${start * third}s`,
  duration: `${third}s`,
  rate: perSecond,
  timeUnit: '1s',
  preAllocatedVUs: 40,
  maxVUs: 200,
});
const quiet = Math.ceil(rate(2000) / 20);

export const options = {
  scenarios: { before: part(0, quiet), spike: part(1, rate(2000)), after: part(2, quiet) },
  thresholds: {
    mcp_wrong_answers: thresholds.mcp_wrong_answers,
    'http_req_duration{scenario:before}': ['p(95)<1000'],
    'http_req_duration{scenario:spike}': ['p(95)<30000'],
    'http_req_duration{scenario:after}': ['p(95)<1000'],
  },
};

let session;

export default function () {
  session = session || initialize();
  call(tools.query, { session });
}
