// Smoke: does everything answer as it must? Both eras, a session, lists, streams, refusals; one user, a few seconds.
//
//   load-tests/stage k6 run load-tests/k6/smoke.js
//
// Shows that gateway, policy and script fit together. Run it before any other. Says nothing about speed.

import { call, initialize, request, seconds, thresholds, tools } from './mcp.js';

export const options = {
  scenarios: { smoke: { executor: 'constant-vus', vus: 1, duration: `${seconds(5)}s` } },
  thresholds: { mcp_wrong_answers: thresholds.mcp_wrong_answers },
};

let session;

export default function () {
  session = session || initialize();
  request('ping', {}, { session });
  request('tools/list', {}, { session });
  request('tools/list', {}, { modern: true });
  for (const options of [{ session }, {}, { modern: true }]) {
    call(tools.query, options);
    call(tools.blob(10000), options);
    call(tools.watch(3, 5), options);
    call(tools.fails, Object.assign({ expected: 'error' }, options));
    call(tools.blocked, Object.assign({ expected: 'error' }, options));
    call(tools.forbidden, Object.assign({ expected: 'error' }, options));
  }
}
