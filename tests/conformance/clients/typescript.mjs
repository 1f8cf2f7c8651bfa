// Does an official TypeScript client work through this endpoint?
//
// usage: node typescript.mjs URL v1|v2 legacy|modern|http|sse      v1: @modelcontextprotocol/sdk, v2: @modelcontextprotocol/client
//   legacy, modern   the reference server over Streamable HTTP, in 2025-11-25 or in 2026-07-28
//   http, sse        server-everything, which knows 2025-11-25 only, over Streamable HTTP or over HTTP+SSE
// PORTCULLIS_KEY, when set, is shown as the client's API key, and the steps that only a gateway can pass are run too.
// SERVERS names servers.json: the servers' tools, and what of them the agent of the key may see. REFUSED_ELSEWHERE=1 says that
// what this client posts over HTTP+SSE may be refused by a node that does not have its stream.
// Prints one line per step in the suite's own form, so that one reader judges both.

import fs from 'node:fs';

const [url, sdk, how] = process.argv.slice(2);
const key = process.env.PORTCULLIS_KEY;
const modern = how === 'modern';
const sse = how === 'sse';
const everything = how === 'http' || sse;
const server = JSON.parse(fs.readFileSync(process.env.SERVERS, 'utf8'))[everything ? 'everything' : 'reference'];
const ANSWER = { response: 'portcullis-answer', name: 'portcullis-answer', check: true, email: 'a@b.example', integer: 1, number: 1.5 };
const ROOT = 'file:///portcullis-root';
const elsewhere = sse && process.env.REFUSED_ELSEWHERE === '1';
const STEP_MS = 25_000;

let failed = 0;
const seen = { elicitations: 0, samplings: 0, roots: 0, updates: [], listChanges: 0 };

function must(condition, otherwise) {
  if (!condition) throw new Error(otherwise);
}

function sleep(milliseconds) {
  return new Promise(resolve => setTimeout(resolve, milliseconds));
}

async function until(condition, otherwise) {
  const end = performance.now() + 8_000;
  while (!(await condition())) {
    must(performance.now() < end, `${otherwise} in 8 s`);
    await sleep(20);
  }
}

function deadline() {
  return new Promise((_, reject) => setTimeout(() => reject(new Error(`no answer in ${STEP_MS} ms`)), STEP_MS).unref());
}

async function step(name, body) {
  try {
    await Promise.race([body(), deadline()]);
    console.log(`✓ ${name}: 1 passed, 0 failed`);
  } catch (error) {
    failed += 1;
    console.log(`✗ ${name}: 0 passed, 1 failed`);
    console.log(`  ${String(error?.message ?? error).slice(0, 300).replaceAll('\n', ' ')}`);
  }
}

async function gatewayStep(name, body) {
  if (key) await step(name, body);
  else console.log(`- ${name}: needs a gateway`);
}

const answers = {
  elicitation: async () => ((seen.elicitations += 1), { action: 'accept', content: ANSWER }),
  sampling: async () => (
    (seen.samplings += 1), { role: 'assistant', model: 'none', stopReason: 'endTurn', content: { type: 'text', text: 'portcullis-sample' } }
  ),
  roots: async () => ((seen.roots += 1), { roots: [{ uri: ROOT, name: 'root' }] }),
  updated: notification => void seen.updates.push(notification.params.uri),
  listChanged: () => void (seen.listChanges += 1),
};

// Both generations of the client behind one small face.
async function open() {
  const info = { name: `conformance-typescript-${sdk}`, version: '1' };
  const capabilities = { elicitation: { form: {} }, sampling: {}, roots: { listChanged: true } };
  const options = { requestInit: { headers: key ? { Authorization: `Bearer ${key}` } : {} } };
  if (sdk === 'v2') {
    const { Client, SSEClientTransport, StreamableHTTPClientTransport } = await import('@modelcontextprotocol/client');
    const client = new Client(info, { capabilities, versionNegotiation: { mode: modern ? 'auto' : 'legacy' } });
    client.setRequestHandler('elicitation/create', answers.elicitation);
    client.setRequestHandler('sampling/createMessage', answers.sampling);
    client.setRequestHandler('roots/list', answers.roots);
    client.setNotificationHandler('notifications/resources/updated', answers.updated);
    client.setNotificationHandler('notifications/tools/list_changed', answers.listChanged);
    const transport = new (sse ? SSEClientTransport : StreamableHTTPClientTransport)(new URL(url), options);
    return { client, transport, callTool: (params, more) => client.callTool(params, more) };
  }
  const { Client } = await import('@modelcontextprotocol/sdk/client/index.js');
  const { SSEClientTransport } = await import('@modelcontextprotocol/sdk/client/sse.js');
  const { StreamableHTTPClientTransport } = await import('@modelcontextprotocol/sdk/client/streamableHttp.js');
  const types = await import('@modelcontextprotocol/sdk/types.js');
  const client = new Client(info, { capabilities });
  client.setRequestHandler(types.ElicitRequestSchema, answers.elicitation);
  client.setRequestHandler(types.CreateMessageRequestSchema, answers.sampling);
  client.setRequestHandler(types.ListRootsRequestSchema, answers.roots);
  client.setNotificationHandler(types.ResourceUpdatedNotificationSchema, answers.updated);
  client.setNotificationHandler(types.ToolListChangedNotificationSchema, answers.listChanged);
  const transport = new (sse ? SSEClientTransport : StreamableHTTPClientTransport)(new URL(url), options);
  return { client, transport, callTool: (params, more) => client.callTool(params, undefined, more) };
}

function text(result) {
  return (result.content ?? []).map(part => part.text ?? '').join('');
}

async function refused(promise, code, words) {
  let answer;
  try {
    answer = await promise;
  } catch (error) {
    // Such a node can only answer the post.
    if (elsewhere && /\(HTTP 4\d\d\): {"jsonrpc"/.test(error.message) && error.message.includes(`"code":${code},`)) return;
    must(error.code === code, `refused with ${error.code} (${error.message}), not with ${code}`);
    must(String(error.message).includes(words), `the refusal says: ${error.message}`);
    return;
  }
  throw new Error(`not refused: ${text(answer)}`);
}

const { client, transport, callTool } = await open();
const call = ({ tool, arguments: args = {} }, more = {}) => callTool({ name: tool, arguments: args }, more);
const names = async () => (await client.listTools()).tools.map(tool => tool.name).sort();
const eliciting = server.elicitation[modern ? 'modern' : 'legacy'];
const sampling = server.sampling[modern ? 'modern' : 'legacy'];

await step('connect', async () => {
  await client.connect(transport);
  const version = (sse ? undefined : transport.protocolVersion) ?? client.getNegotiatedProtocolVersion?.();
  // The older generation does not say what it negotiated over HTTP+SSE.
  if (version || !sse) must(version === (modern ? '2026-07-28' : '2025-11-25'), `negotiated ${version}`);
  must(modern || sse || transport.sessionId, 'no session was opened');
});
if (failed) process.exit(1);

await step('tools-list', async () => {
  // server-everything offers some tools only once it has been told that the client is ready.
  await until(async () => (await names()).includes(eliciting.tool), `${eliciting.tool} was not listed`);
  must((await names()).includes(server.call.tool), (await names()).join(' '));
});

await step('tools-call', async () => {
  const answer = text(await call(server.call));
  must(answer.includes(server.call.answer), answer);
});

await step('progress-before-result', async () => {
  // A gateway that holds back the stream hands over all at once, every time; a busy machine may do so once.
  let found;
  for (let attempt = 0; attempt < 3; attempt += 1) {
    const at = [];
    await call(server.progress, { onprogress: () => at.push(performance.now()) });
    const lead = performance.now() - (at[0] ?? Infinity);
    if (at.length >= 3 && lead >= server.progress.lead_ms) return;
    found = `${at.length} notifications, the first ${lead.toFixed(0)} ms before the result`;
  }
  throw new Error(found);
});

await step('elicitation', async () => {
  const before = seen.elicitations;
  const answer = text(await call(eliciting));
  must(seen.elicitations > before, `nothing was asked: ${answer}`);
  must(answer.includes('portcullis-answer'), answer);
});

await step('sampling', async () => {
  const before = seen.samplings;
  const answer = text(await call(sampling));
  must(seen.samplings > before, `nothing was asked: ${answer}`);
  must(answer.includes('portcullis-sample'), answer);
});

if (server.roots) {
  await step('roots-asked-outside-of-calls', async () => {
    await until(() => seen.roots > 0, 'the server did not ask for the roots');
    const answer = text(await call(server.roots));
    must(answer.includes(ROOT), answer);
  });
}

await step('resources', async () => {
  must((await client.listResources()).resources.length > 0, 'none is listed');
  must((await client.readResource({ uri: server.resource })).contents.length > 0, 'what was read is empty');
});

await step('prompts', async () => {
  must((await client.listPrompts()).prompts.some(prompt => prompt.name === server.prompt), `${server.prompt} is not listed`);
  must((await client.getPrompt({ name: server.prompt })).messages.length > 0, 'the prompt is empty');
});

await step('told-of-changes', async () => {
  const { resource: uri } = server;
  if (modern) {
    const subscription = await client.listen({ toolsListChanged: true });
    const before = seen.listChanges;
    await call(server.changing);
    await until(() => seen.listChanges > before, 'no change of the list was told');
    await subscription.close();
    return;
  }
  await client.subscribeResource({ uri });
  if (server.updating) {
    await call(server.updating);
    await until(() => seen.updates.includes(uri), 'no update was told');
    await call(server.updating);
  }
  await client.unsubscribeResource({ uri });
});

await step('calls-in-parallel', async () => {
  let slowDone = false;
  const slow = call(server.slow).then(() => (slowDone = true));
  const numbers = [...Array(20).keys()];
  const fast = await Promise.all(numbers.map(n => call(server.echo ? { tool: server.echo, arguments: { message: `m${n} ` } } : server.call)));
  const overtook = !slowDone;
  await slow;
  for (const n of numbers) must(text(fast[n]).includes(server.echo ? `m${n} ` : server.call.answer), `${n} got: ${text(fast[n])}`);
  must(!server.echo || overtook, 'the fast calls waited for the slow one');
});

if (server.endless) {
  await step('cancel', async () => {
    const abort = new AbortController();
    setTimeout(() => abort.abort(new Error('enough')), 200);
    const began = performance.now();
    const outcome = await call(server.endless, { signal: abort.signal }).then(() => 'an answer', () => 'cancelled');
    must(outcome === 'cancelled' && performance.now() - began < 2_000, `${outcome} after ${performance.now() - began} ms`);
    must(text(await call(server.call)).includes(server.call.answer), 'the next call is not answered');
  });
}

if (server.echo) {
  await step('large-argument', async () => {
    // The server takes 100 KiB.
    const message = 'x'.repeat(90 * 1024);
    must(text(await call({ tool: server.echo, arguments: { message } })).includes(message), 'it came back changed');
  });
}

await gatewayStep('list-is-what-may-be-called', async () => {
  const found = (await names()).join(' ');
  must(found === server.listed.toSorted().join(' '), found);
});

await gatewayStep('hidden-tool-is-unknown', () => {
  const { tool } = server.hidden;
  return refused(call({ tool }), -32602, `Unknown tool: ${tool}`);
});

await gatewayStep('hidden-resource-is-unknown', async () => {
  const { resource: uri } = server.hidden;
  must((await client.listResources()).resources.every(resource => resource.uri !== uri), 'it is listed');
  await refused(client.readResource({ uri }), modern ? -32602 : -32002, '');
});

await gatewayStep('hidden-prompt-is-unknown', async () => {
  const { prompt: name } = server.hidden;
  must((await client.listPrompts()).prompts.every(prompt => prompt.name !== name), 'it is listed');
  await refused(client.getPrompt({ name }), -32602, '');
});

await gatewayStep('constraint-refuses', () => refused(call(server.constrained), -31403, ''));

await step('close', async () => {
  if (!modern && !sse) await transport.terminateSession();
  await client.close();
});

process.exit(failed ? 1 : 0);
