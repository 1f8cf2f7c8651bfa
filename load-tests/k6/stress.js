// Stress: more and more calls a second, until well beyond what the machine can do.
//
//   load-tests/stage k6 run load-tests/k6/stress.js            RATE=4000 (the last step) DURATION_S=60
//
// Shows how the gateway behaves when it is too much: calls get slower, none may be answered wrongly, none may pass that policy
// refuses (one of ten is such a call). Calls that k6 could not start are expected here and count as no failure.

import { call, initialize, rate, seconds, thresholds, tools } from './mcp.js';

const step = `${Math.max(1, Math.round(seconds(60) / 5))}s`;
const most = rate(4000);

export const options = {
  scenarios: {
    stress: {
      executor: 'ramping-arrival-rate',
      startRate: Math.ceil(most / 20),
      timeUnit: '1s',
      preAllocatedVUs: 50,
      maxVUs: 200,
      stages: [0.1, 0.25, 0.5, 1, 0.1].map((share) => ({ target: Math.ceil(most * share), duration: step })),
    },
  },
  thresholds: { mcp_wrong_answers: thresholds.mcp_wrong_answers },
};

let session;

export default function () {
  session = session || initialize();
  if (__ITER % 10 === 9) call(tools.forbidden, { session, expected: 'error' });
  else call(tools.query, { session });
}
