// What did the gateways leave behind?
//
// usage: node after.mjs before DATA_URL ADMIN_URL        while one runs: health and metrics answer
//        node after.mjs after OUT LEGS FOLDER..          when they have ended: the record in each folder is a chain, what LEGS
//                                                        called is on record, and the key is nowhere under OUT
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

// [tool, how often it was refused]: each client was refused a hidden tool and a constrained argument of its server. LEGS has
// those that asked.
function refusals(legs) {
  const servers = JSON.parse(fs.readFileSync(process.env.SERVERS, 'utf8'));
  const clients = { reference: 0, everything: 0 };
  for (const leg of legs.split(' ').filter(Boolean)) clients[/-(http|sse)(@|$)/.test(leg) ? 'everything' : 'reference'] += 1;
  return Object.entries(clients).flatMap(([server, count]) => [
    [servers[server].hidden.tool, count],
    [servers[server].constrained.tool, count],
  ]);
}

async function after(out, legs, ...folders) {
  const parsed = [];
  await step('record-is-a-chain', () => {
    for (const folder of folders) {
      const found = [];
      let previous = '0'.repeat(64);
      for (const line of records(path.join(folder, 'audit'))) {
        const record = JSON.parse(line);
        must(record.prev === previous, `${folder}: record ${record.seq} does not continue the one before it`);
        previous = createHash('sha256').update(line).digest('hex');
        found.push(record);
      }
      parsed.push(found);
    }
  });
  await step('every-call-has-intent-and-result', () => {
    for (const [index, found] of parsed.entries()) {
      const count = kind => found.filter(record => record.kind === kind).length;
      // The suite legs alone make more than 100 calls, and a pair shares them.
      must(count('intent') > 100, `${folders[index]}: ${count('intent')} intents`);
      must(count('intent') === count('result'), `${folders[index]}: ${count('intent')} intents, ${count('result')} results`);
    }
  });
  await step('every-refusal-is-on-record', () => {
    for (const [tool, count] of refusals(legs)) {
      const refused = parsed.flat().filter(record => record.kind === 'refused' && record.tool === tool).length;
      must(refused === count, `${refused} refusals of ${tool}, not ${count}`);
    }
  });
  await step('key-is-nowhere', () => {
    for (const file of filesUnder(out)) must(!fs.readFileSync(file).includes(process.env.PORTCULLIS_KEY), `the key is in ${file}`);
  });
}

const [when, ...rest] = process.argv.slice(2);
await (when === 'before' ? before(...rest) : after(...rest));
