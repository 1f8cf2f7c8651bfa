// An authorization server (oidc-provider) and an MCP server (the official SDK), on loopback ports of their own.
//
// usage: node issuer.mjs      prints `{"issuer": URL, "server": URL}` once both listen
// Clients register themselves, or are `known`, log in through the provider's own forms, and get tokens for the resource they name (RFC 8707).

import crypto from 'node:crypto';
import http from 'node:http';

import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import Provider from 'oidc-provider';

function listen(server) {
  return new Promise(resolve => server.listen(0, '127.0.0.1', () => resolve(server.address().port)));
}

function key(type, options, alg, kid) {
  const { privateKey } = crypto.generateKeyPairSync(type, options);
  return { ...privateKey.export({ format: 'jwk' }), alg, kid, use: 'sig' };
}

let provider;
const authorization = http.createServer((request, response) => provider.callback()(request, response));
const issuer = `http://127.0.0.1:${await listen(authorization)}`;
provider = new Provider(issuer, {
  jwks: { keys: [key('ec', { namedCurve: 'P-256' }, 'ES256', 'access'), key('rsa', { modulusLength: 2048 }, 'RS256', 'identity')] },
  cookies: { keys: ['loopback'] },
  scopes: ['openid', 'offline_access', 'mcp', 'greet'],
  async findAccount(_, sub) {
    return { accountId: sub, claims: async () => ({ sub }) };
  },
  async extraTokenClaims(_, token) {
    return token.accountId ? { groups: ['dev'], email: `${token.accountId}@x.example` } : undefined;
  },
  clients: [{
    client_id: 'known',
    redirect_uris: ['http://127.0.0.1:9/callback'],
    application_type: 'native',
    token_endpoint_auth_method: 'none',
  }],
  features: {
    registration: { enabled: true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: (_, resource) => ({
        scope: 'mcp greet',
        audience: resource,
        accessTokenFormat: 'jwt',
        accessTokenTTL: 600,
        jwt: { sign: { alg: 'ES256' } },
      }),
    },
  },
});

const seen = [];
const mcp = http.createServer(async (request, response) => {
  seen.push(JSON.stringify(request.headers));
  if (request.url === '/seen') return response.end(JSON.stringify(seen));
  const server = new McpServer({ name: 'greeter', version: '1' });
  for (const name of ['hello', 'greet']) {
    server.registerTool(name, {}, async () => ({ content: [{ type: 'text', text: `${name} there` }] }));
  }
  const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined });
  await server.connect(transport);
  await transport.handleRequest(request, response);
});
const server = `http://127.0.0.1:${await listen(mcp)}/mcp`;
console.log(JSON.stringify({ issuer, server }));
