// How does a k6 script speak MCP? Both eras, sessions, streams that are read whole; and how an answer is judged.
//
// URL and KEY come from the environment; `load-tests/stage` sets both.

import http from 'k6/http';
import { check } from 'k6';
import { Counter, Rate } from 'k6/metrics';

const URL = __ENV.URL || 'http://127.0.0.1:8080/mcp/example';
const LEGACY = '2025-11-25';
const MODERN = '2026-07-28';

// Answers that were not what they had to be. Every script fails above none.
export const wrong = new Rate('mcp_wrong_answers');
export const events = new Counter('mcp_events');

const QUERY = {
  sql: "SELECT id, name, email FROM users WHERE created_at > '2026-01-01' ORDER BY id LIMIT 50",
  database: 'production',
  timeout_ms: 5000,
};

export const tools = {
  query: { name: 'execute_query', arguments: QUERY },
  describe: { name: 'describe_table', arguments: { table: 'users' } },
  blob: (bytes) => ({ name: 'read_blob', arguments: { bytes } }),
  watch: (count, spacing) => ({ name: 'watch_table', arguments: { events: count, spacing_ms: spacing } }),
  fails: { name: 'fail', arguments: { kind: 'rpc' } },
  blocked: { name: 'drop_table', arguments: QUERY },
  forbidden: { name: 'execute_query', arguments: Object.assign({}, QUERY, { sql: 'DELETE FROM users' }) },
};

// Seconds and requests a second of a script, from the environment.
export const seconds = (otherwise) => Number(__ENV.DURATION_S || otherwise);
export const rate = (otherwise) => Number(__ENV.RATE || otherwise);

// What every script holds: no wrong answer, and nothing that k6 could not start in time.
export const thresholds = { mcp_wrong_answers: ['rate==0'], dropped_iterations: ['count==0'] };

let id = 0;

function post(message, headers, tags) {
  const all = Object.assign(
    { 'Content-Type': 'application/json', Accept: 'application/json, text/event-stream' },
    __ENV.KEY ? { Authorization: `Bearer ${__ENV.KEY}` } : {},
    headers,
  );
  return http.post(URL, JSON.stringify(message), { headers: all, tags, timeout: '60s' });
}

// The messages of an answer, JSON or events.
function messages(answer) {
  const type = answer.headers['Content-Type'] || '';
  try {
    if (!type.startsWith('text/event-stream')) return [JSON.parse(answer.body)];
    const data = answer.body.split('\n').filter((line) => line.startsWith('data:'));
    return data.map((line) => line.slice(5).trim()).filter((text) => text).map((text) => JSON.parse(text));
  } catch (_) {
    return [];
  }
}

// Begins a session: what to give to `request` as `session`.
export function initialize() {
  const info = { name: 'k6', version: '1' };
  const params = { protocolVersion: LEGACY, capabilities: {}, clientInfo: info };
  const answer = post({ jsonrpc: '2.0', id: 0, method: 'initialize', params }, {}, { name: 'initialize' });
  const session = answer.headers['Mcp-Session-Id'] || null;
  const headers = session ? { 'Mcp-Session-Id': session, 'MCP-Protocol-Version': LEGACY } : {};
  const accepted = post({ jsonrpc: '2.0', method: 'notifications/initialized' }, headers, { name: 'initialized' });
  wrong.add(!check(accepted, { 'initialized is accepted': (a) => answer.status === 200 && a.status === 202 }));
  return session;
}

// Makes one request and judges its answer: `expected` is 'result' or 'error'. Returns all messages of the answer.
export function request(method, params, options) {
  const { session, modern, expected = 'result' } = options || {};
  id += 1;
  const headers = { 'MCP-Protocol-Version': modern ? MODERN : LEGACY };
  const meta = { progressToken: `t${id}` };
  if (modern) {
    headers['Mcp-Method'] = method;
    if (params.name) headers['Mcp-Name'] = params.name;
    meta['io.modelcontextprotocol/protocolVersion'] = MODERN;
    meta['io.modelcontextprotocol/clientCapabilities'] = {};
  } else if (session) {
    headers['Mcp-Session-Id'] = session;
  }
  const message = { jsonrpc: '2.0', id, method, params: Object.assign({}, params, { _meta: meta }) };
  const answer = post(message, headers, { name: params.name || method });
  const all = messages(answer);
  const right = all.some((found) => found.id === id && found[expected] !== undefined);
  wrong.add(!check(answer, { [`${params.name || method}: ${expected}`]: (a) => a.status === 200 && right }));
  events.add(all.length - 1);
  return all;
}

// Calls a tool.
export const call = (tool, options) => request('tools/call', tool, options);
