// SSE fan-out: many streams at once, each with an event every 100 ms.
//
//   load-tests/stage k6 run load-tests/k6/sse-fanout.js        STREAMS=200 DURATION_S=20
//
// Shows that streams by the hundred lose no event: each stream has to bring all of its progress events and its result. k6 reads
// an answer only when it is whole, so it says nothing about single events' delay (`cargo bench --bench streams` does), and
// it cannot hold standing streams (`generator listen` does).

import { check } from 'k6';
import { call, initialize, seconds, thresholds, tools, wrong } from './mcp.js';

const COUNT = 50;

export const options = {
  scenarios: {
    fanout: {
      executor: 'constant-vus',
      vus: Number(__ENV.STREAMS || 200),
      duration: `${seconds(20)}s`,
      gracefulStop: '30s',
    },
  },
  thresholds: { mcp_wrong_answers: thresholds.mcp_wrong_answers },
};

let session;

export default function () {
  session = session || initialize();
  const all = call(tools.watch(COUNT, 100), { session });
  const numbers = all.filter((message) => message.method).map((message) => message.params.progress);
  const inOrder = numbers.length === COUNT && numbers.every((number, at) => number === at + 1);
  wrong.add(!check(numbers, { 'every event came, in order': () => inOrder }));
}
