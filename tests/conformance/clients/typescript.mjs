// Does an official TypeScript client work through this endpoint?
//
// usage: node typescript.mjs URL v1|v2 legacy|modern        v1: @modelcontextprotocol/sdk, v2: @modelcontextprotocol/client
// PORTCULLIS_KEY, when set, is shown as the client's API key, and the steps that only a gateway can pass are run too.
// Prints one line per step in the suite's own form, so that one reader judges both.

const [url, sdk, era] = process.argv.slice(2);
const key = process.env.PORTCULLIS_KEY;
const modern = era === 'modern';
const ANSWER = { response: 'portcullis-answer', name: 'portcullis-answer' };
const ELICITING = modern ? 'test_input_required_result_elicitation' : 'test_elicitation';
const STEP_MS = 25_000;

let failed = 0;
let elicited = 0;

function must(condition, otherwise) {
  if (!condition) throw new Error(otherwise);
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
    console.log(`  ${String(error?.message ?? error).slice(0, 300)}`);
  }
}

async function gatewayStep(name, body) {
  if (key) await step(name, body);
  else console.log(`- ${name}: needs a gateway`);
}

async function answerElicitation() {
  elicited += 1;
  return { action: 'accept', content: ANSWER };
}

// Both generations of the client behind one small face: {connect, call, list, version, close}.
async function open() {
  const info = { name: `conformance-typescript-${sdk}`, version: '1' };
  const capabilities = { elicitation: { form: {} } };
  const options = { requestInit: { headers: key ? { Authorization: `Bearer ${key}` } : {} } };
  if (sdk === 'v2') {
    const { Client, StreamableHTTPClientTransport } = await import('@modelcontextprotocol/client');
    const client = new Client(info, { capabilities, versionNegotiation: { mode: modern ? 'auto' : 'legacy' } });
    client.setRequestHandler('elicitation/create', answerElicitation);
    const transport = new StreamableHTTPClientTransport(new URL(url), options);
    return { client, transport, call: (name, args = {}, more = {}) => client.callTool({ name, arguments: args }, more) };
  }
  const { Client } = await import('@modelcontextprotocol/sdk/client/index.js');
  const { StreamableHTTPClientTransport } = await import('@modelcontextprotocol/sdk/client/streamableHttp.js');
  const { ElicitRequestSchema } = await import('@modelcontextprotocol/sdk/types.js');
  const client = new Client(info, { capabilities });
  client.setRequestHandler(ElicitRequestSchema, answerElicitation);
  const transport = new StreamableHTTPClientTransport(new URL(url), options);
  return { client, transport, call: (name, args = {}, more = {}) => client.callTool({ name, arguments: args }, undefined, more) };
}

function text(result) {
  return (result.content ?? []).map(part => part.text ?? '').join('');
}

async function refused(promise, code, words) {
  let answer;
  try {
    answer = await promise;
  } catch (error) {
    must(error.code === code, `refused with ${error.code} (${error.message}), not with ${code}`);
    must(String(error.message).includes(words), `the refusal says: ${error.message}`);
    return;
  }
  throw new Error(`not refused: ${text(answer)}`);
}

const { client, transport, call } = await open();

await step('connect', async () => {
  await client.connect(transport);
  const version = transport.protocolVersion ?? client.getNegotiatedProtocolVersion?.();
  must(version === (modern ? '2026-07-28' : '2025-11-25'), `negotiated ${version}`);
  must(modern || transport.sessionId, 'no session was opened');
});
if (failed) process.exit(1);

await step('tools-list', async () => {
  const names = (await client.listTools()).tools.map(tool => tool.name);
  must(names.includes('test_simple_text') && names.includes(ELICITING), names.join(' '));
});

await step('tools-call', async () => {
  const answer = text(await call('test_simple_text'));
  must(answer.includes('simple text response'), answer);
});

await step('progress-before-result', async () => {
  // The server takes 100 ms from the first notification to the result. A gateway that holds back the stream hands over
  // all at once, every time; a busy machine may do so once.
  let found;
  for (let attempt = 0; attempt < 3; attempt += 1) {
    const at = [];
    await call('test_tool_with_progress', {}, { onprogress: () => at.push(performance.now()) });
    const lead = performance.now() - (at[0] ?? Infinity);
    if (at.length >= 3 && lead >= 50) return;
    found = `${at.length} notifications, the first ${lead.toFixed(0)} ms before the result`;
  }
  throw new Error(found);
});

await step('elicitation', async () => {
  const before = elicited;
  const answer = text(await call(ELICITING, modern ? {} : { message: 'what is the answer' }));
  must(elicited > before, `nothing was asked: ${answer}`);
  must(answer.includes('portcullis-answer'), answer);
});

await gatewayStep('list-is-what-may-be-called', async () => {
  const names = (await client.listTools()).tools.map(tool => tool.name).sort().join(' ');
  must(names === process.env.PORTCULLIS_TOOLS.split(' ').sort().join(' '), names);
});

await gatewayStep('hidden-tool-is-unknown', () => refused(call('test_image_content'), -32602, 'Unknown tool: test_image_content'));

await gatewayStep('constraint-refuses', () => refused(call('test_elicitation', { message: 'DROP TABLE users' }), -31403, ''));

await step('close', async () => {
  if (!modern) await transport.terminateSession();
  await client.close();
});

process.exit(failed ? 1 : 0);
