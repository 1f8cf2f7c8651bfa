// Reload under load: the configuration changes while calls are made.
//
//   RELOAD_SECONDS=1 load-tests/stage k6 run load-tests/k6/reload-under-load.js      RATE=300 DURATION_S=30
//
// Shows that no call is lost, slowed for long or judged by half of a policy while SIGHUP brings a new one every second: the
// stage rewrites a constraint and a label each time. Against a gateway of your own, send the SIGHUPs yourself.

import { call, initialize, rate, seconds, thresholds, tools } from './mcp.js';

export const options = {
  scenarios: {
    load: {
      executor: 'constant-arrival-rate',
      rate: rate(300),
      timeUnit: '1s',
      duration: `${seconds(30)}s`,
      preAllocatedVUs: 30,
      maxVUs: 100,
    },
  },
  thresholds: Object.assign({ http_req_duration: ['max<5000'] }, thresholds),
};

let session;

export default function () {
  session = session || initialize();
  if (__ITER % 5 === 4) call(tools.forbidden, { session, expected: 'error' });
  else if (__ITER % 5 === 3) call(tools.watch(3, 10), { session });
  else call(tools.query, { session });
}
