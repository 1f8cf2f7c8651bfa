// What did the gateway leave behind?
//
// usage: node after.mjs before DATA_URL ADMIN_URL     while it runs: health and metrics answer
//        node after.mjs after OUT                     when it has ended: the record is a chain, and the key is nowhere
// PORTCULLIS_KEY is the key the clients showed. Prints one line per step in the suite's own form.

import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';

async function step(name, body) {
  try {
    await body();
    console.log(`✓ ${name}: 1 passed, 0 failed`);
  } catch (error) {
    console.log(`✗ ${name}: 0 passed, 1 failed\n  ${String(error?.message ?? error).slice(0, 300)}`);
  }
}

function must(condition, otherwise) {
  if (!condition) throw new Error(otherwise);
}

async function answer(url) {
  const response = await fetch(url, { signal: AbortSignal.timeout(5_000) });
  must(response.status === 200, `${response.status}`);
  return response.text();
}

// The segments in the order they were written: each begins where the one before it ended.
function records(directory) {
  const names = fs.readdirSync(directory).filter(name => name.endsWith('.jsonl')).sort();
  return names.flatMap(name => fs.readFileSync(path.join(directory, name), 'utf8').split('\n')).filter(line => line !== '');
}

function filesUnder(directory) {
  return fs.readdirSync(directory, { recursive: true, withFileTypes: true }).filter(entry => entry.isFile()).map(entry => path.join(entry.parentPath, entry.name));
}

async function before(data, admin) {
  await step('health', () => answer(`${data}/healthz`));
  await step('metrics', async () => {
    const text = await answer(`${admin}/metrics`);
    must(/^portcullis_\w+/m.test(text), 'no metric named portcullis_*');
    must(!text.includes(process.env.PORTCULLIS_KEY), 'the key is in the metrics');
  });
}

async function after(out) {
  const lines = records(path.join(out, 'audit'));
  const parsed = [];
  await step('record-is-a-chain', () => {
    let previous = '0'.repeat(64);
    for (const line of lines) {
      const record = JSON.parse(line);
      must(record.prev === previous, `record ${record.seq} does not continue the one before it`);
      previous = createHash('sha256').update(line).digest('hex');
      parsed.push(record);
    }
  });
  await step('every-call-has-intent-and-result', () => {
    const count = kind => parsed.filter(record => record.kind === kind).length;
    // The two suite legs alone make more than 100 calls.
    must(count('intent') > 100, `${count('intent')} intents`);
    must(count('intent') === count('result'), `${count('intent')} intents, ${count('result')} results`);
  });
  await step('every-refusal-is-on-record', () => {
    // Five clients were refused a hidden tool and a constrained argument each.
    for (const tool of ['test_image_content', 'test_elicitation']) {
      const refused = parsed.filter(record => record.kind === 'refused' && record.tool === tool).length;
      must(refused === 5, `${refused} refusals of ${tool}`);
    }
  });
  await step('key-is-nowhere', () => {
    for (const file of filesUnder(out)) must(!fs.readFileSync(file).includes(process.env.PORTCULLIS_KEY), `the key is in ${file}`);
  });
}

const [when, ...rest] = process.argv.slice(2);
await (when === 'before' ? before(...rest) : after(...rest));
