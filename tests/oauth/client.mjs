// Does an official client log in with nothing but the gateway's URL, and call a tool?
//
// usage: node client.mjs URL SEEN      URL: the server at the gateway; SEEN: where the MCP server shows what headers it got
// The user's browser is played by `consent`: it follows the provider's forms. Prints one line per step; exit code 1 if one failed.

import { UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const [url, seenUrl] = process.argv.slice(2);
const CALLBACK = 'http://127.0.0.1:9/callback';
let failed = 0;

function must(condition, otherwise) {
  if (!condition) throw new Error(otherwise);
}

async function step(name, body) {
  try {
    await body();
    console.log(`ok: ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED: ${name}: ${error?.stack ?? error}`);
  }
}

// What the client keeps of its login.
const kept = {};
const auth = {
  redirectUrl: CALLBACK,
  clientMetadata: {
    client_name: 'test',
    redirect_uris: [CALLBACK],
    application_type: 'native',
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    token_endpoint_auth_method: 'none',
  },
  clientInformation: () => kept.client,
  saveClientInformation: client => void (kept.client = client),
  tokens: () => kept.tokens,
  saveTokens: tokens => void (kept.tokens = tokens),
  redirectToAuthorization: to => void (kept.to = to),
  saveCodeVerifier: verifier => void (kept.verifier = verifier),
  codeVerifier: () => kept.verifier,
};

// Logs in as `ann` and consents to everything, as a user would; returns the code.
async function consent(to) {
  const cookies = new Map();
  let [target, form] = [String(to), undefined];
  for (let round = 0; round < 20; round += 1) {
    const headers = { cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join('; ') };
    const answer = await fetch(target, { method: form ? 'POST' : 'GET', body: form, headers, redirect: 'manual' });
    for (const cookie of answer.headers.getSetCookie()) {
      const [pair] = cookie.split(';');
      cookies.set(pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1));
    }
    form = undefined;
    const location = answer.headers.get('location');
    if (location) {
      target = new URL(location, target).href;
      if (target.startsWith(CALLBACK)) {
        const code = new URL(target).searchParams.get('code');
        must(code, `no code: ${target}`);
        return code;
      }
      continue;
    }
    const page = await answer.text();
    const action = page.match(/<form[^>]*action="([^"]+)"/)?.[1];
    must(action, `no form (${answer.status}): ${page.slice(0, 300)}`);
    form = new URLSearchParams();
    for (const [input] of page.matchAll(/<input[^>]*>/g)) {
      const name = input.match(/name="([^"]+)"/)?.[1];
      if (name) form.set(name, input.match(/value="([^"]*)"/)?.[1] ?? '');
    }
    if (form.has('login')) form.set('login', 'ann');
    target = new URL(action, target).href;
  }
  throw new Error('the login does not end');
}

function open() {
  const client = new Client({ name: 'test', version: '1' });
  return { client, transport: new StreamableHTTPClientTransport(new URL(url), { authProvider: auth }) };
}

// Does something; if it takes a login, logs in and does it again.
async function loggingIn(what) {
  const first = open();
  try {
    await first.client.connect(first.transport);
    return await what(first.client);
  } catch (error) {
    must(error instanceof UnauthorizedError && kept.to, `no login was asked for: ${error}`);
    const code = await consent(kept.to);
    kept.to = undefined;
    await first.transport.finishAuth(code);
  }
  const second = open();
  await second.client.connect(second.transport);
  return what(second.client);
}

await step('the client is sent to the issuer, logs in and lists the tools', async () => {
  const { tools } = await loggingIn(client => client.listTools());
  must(tools.map(tool => tool.name).sort().join() === 'greet,hello', JSON.stringify(tools));
  must(kept.tokens.scope.split(' ').includes('mcp'), `scopes: ${kept.tokens.scope}`);
});

await step('it calls a tool', async () => {
  const { client, transport } = open();
  await client.connect(transport);
  const result = await client.callTool({ name: 'hello', arguments: {} });
  must(result.content[0].text === 'hello there', JSON.stringify(result));
});

await step('a tool that needs another scope has the user asked for it', async () => {
  const before = kept.tokens.access_token;
  // Who registered itself did so for the scopes it knew of then, and the provider holds it to them.
  kept.client = { client_id: 'known' };
  const result = await loggingIn(client => client.callTool({ name: 'greet', arguments: {} }));
  must(result.content[0].text === 'greet there', JSON.stringify(result));
  must(kept.tokens.access_token !== before && kept.tokens.scope.includes('greet'), `scopes: ${kept.tokens.scope}`);
});

await step('the token never reached the server', async () => {
  const seen = await (await fetch(seenUrl)).text();
  must(!seen.includes(kept.tokens.access_token.split('.')[2]) && !seen.includes('"authorization"'), seen);
});

process.exit(failed ? 1 : 0);
