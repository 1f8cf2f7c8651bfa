"""Does an official Python client, or fastmcp's, work through this endpoint?

usage: python_client.py URL python|fastmcp legacy|modern|http|sse
  legacy, modern   the reference server over Streamable HTTP, in 2025-11-25 or in 2026-07-28
  http, sse        server-everything, which knows 2025-11-25 only, over Streamable HTTP or over HTTP+SSE
PORTCULLIS_KEY, when set, is shown as the client's API key, and the steps that only a gateway can pass are run too.
SERVERS names servers.json: the servers' tools, and what of them the agent of the key may see. REFUSED_ELSEWHERE=1 says that
what this client posts over HTTP+SSE may be refused by a node that does not have its stream.
Prints one line per step in the suite's own form, so that one reader judges both.
"""

import asyncio
import json
import os
import sys
import time
from contextlib import asynccontextmanager

import mcp_types as types
from mcp.shared.exceptions import MCPError

URL, LIBRARY, HOW = sys.argv[1:4]
KEY = os.environ.get("PORTCULLIS_KEY")
HEADERS = {"Authorization": f"Bearer {KEY}"} if KEY else {}
MODERN = HOW == "modern"
SSE = HOW == "sse"
ERA = "modern" if MODERN else "legacy"
with open(os.environ["SERVERS"]) as file:
    SERVER = json.load(file)["everything" if HOW in ("http", "sse") else "reference"]
ANSWER = {"response": "portcullis-answer", "name": "portcullis-answer", "check": True, "email": "a@b.example", "integer": 1, "number": 1.5}
ROOT = "file:///portcullis-root"
ELSEWHERE = SSE and os.environ.get("REFUSED_ELSEWHERE") == "1"
STEP_SECONDS = 25

failed = 0
seen = {"elicitations": 0, "samplings": 0, "roots": 0, "updates": []}


async def step(name, body):
    global failed
    try:
        await asyncio.wait_for(body(), STEP_SECONDS)
        print(f"✓ {name}: 1 passed, 0 failed")
    except Exception as error:
        failed += 1
        print(f"✗ {name}: 0 passed, 1 failed\n  {type(error).__name__}: {' '.join(str(error)[:300].split())}")


async def gateway_step(name, body):
    if KEY:
        await step(name, body)
    else:
        print(f"- {name}: needs a gateway")


async def refusal_step(name, body):
    # Such a node can only answer the post, and the client ends its session when a post is not accepted.
    if ELSEWHERE:
        print(f"- {name}: needs the node of its stream")
    else:
        await gateway_step(name, body)


async def until(condition, otherwise):
    end = time.monotonic() + 8
    while not await condition():
        assert time.monotonic() < end, f"{otherwise} in 8 s"
        await asyncio.sleep(0.02)


async def on_message(message):
    message = getattr(message, "root", message)
    if getattr(message, "method", None) == "notifications/resources/updated":
        seen["updates"].append(str(message.params.uri))


@asynccontextmanager
async def official_client():
    import httpx2
    from mcp.client.client import Client
    from mcp.client.sse import sse_client
    from mcp.client.streamable_http import streamable_http_client

    async def elicited(_context, _params):
        seen["elicitations"] += 1
        return types.ElicitResult(action="accept", content=ANSWER)

    async def sampled(_context, _params):
        seen["samplings"] += 1
        text = types.TextContent(type="text", text="portcullis-sample")
        return types.CreateMessageResult(role="assistant", model="none", content=text, stop_reason="endTurn")

    async def roots_listed(_context):
        seen["roots"] += 1
        return types.ListRootsResult(roots=[types.Root(uri=ROOT, name="root")])

    async with httpx2.AsyncClient(headers=HEADERS, timeout=httpx2.Timeout(30, read=60)) as http:
        target = sse_client(URL, headers=HEADERS) if SSE else streamable_http_client(URL, http_client=http)
        async with Client(
            target,
            mode="auto" if MODERN else "legacy",
            elicitation_callback=elicited,
            sampling_callback=sampled,
            list_roots_callback=roots_listed,
            message_handler=on_message,
            read_timeout_seconds=20,
        ) as client:

            async def call(tool, arguments=None, progress=None):
                return await client.call_tool(tool, arguments or {}, progress_callback=progress)

            yield client, call


@asynccontextmanager
async def fastmcp_client():
    from fastmcp import Client
    from fastmcp.client.elicitation import ElicitResult
    from fastmcp.client.transports import SSETransport, StreamableHttpTransport

    async def elicited(_message, _response_type, _params, _context):
        seen["elicitations"] += 1
        return ElicitResult(action="accept", content=ANSWER)

    async def sampled(_messages, _params, _context):
        seen["samplings"] += 1
        return "portcullis-sample"

    async def roots_listed(_context):
        seen["roots"] += 1
        return [types.Root(uri=ROOT, name="root")]

    transport = (SSETransport if SSE else StreamableHttpTransport)(URL, headers=HEADERS)
    async with Client(
        transport,
        mode="auto" if MODERN else "legacy",
        elicitation_handler=elicited,
        sampling_handler=sampled,
        roots=roots_listed,
        message_handler=on_message,
        timeout=20,
    ) as client:

        async def call(tool, arguments=None, progress=None):
            return await client.call_tool(tool, arguments or {}, progress_handler=progress, raise_on_error=False)

        yield client, call


def text(result):
    return "".join(getattr(part, "text", "") for part in result.content)


async def refused(answering, code, words):
    try:
        answer = await answering
    except MCPError as error:
        assert error.error.code == code, f"refused with {error.error.code} ({error.error.message}), not with {code}"
        assert words in error.error.message, f"the refusal says: {error.error.message}"
        return
    raise AssertionError(f"not refused: {answer}")


class Steps:
    """The steps of one client; each is one line of the report."""

    def __init__(self, client, call):
        self.client = client
        self.call_tool = call

    async def call(self, what, progress=None):
        return await self.call_tool(what["tool"], what.get("arguments"), progress)

    async def names(self):
        found = await self.client.list_tools()
        return sorted(tool.name for tool in getattr(found, "tools", found))

    async def connect(self):
        expected = "2026-07-28" if MODERN else "2025-11-25"
        assert self.client.protocol_version == expected, f"negotiated {self.client.protocol_version}"

    async def tools_list(self):
        eliciting = SERVER["elicitation"][ERA]["tool"]

        # server-everything offers some tools only once it has been told that the client is ready.
        async def complete():
            return eliciting in await self.names()

        await until(complete, f"{eliciting} was not listed")
        assert SERVER["call"]["tool"] in await self.names()

    async def tools_call(self):
        answer = text(await self.call(SERVER["call"]))
        assert SERVER["call"]["answer"] in answer, answer

    async def progress(self):
        # A gateway that holds back the stream hands over all at once, every time; a busy machine may do so once.
        found = ""
        for _ in range(3):
            at = []

            async def note(_progress, _total=None, _message=None):
                at.append(time.monotonic())

            await self.call(SERVER["progress"], note)
            end = time.monotonic()
            await asyncio.sleep(0.05)
            lead_ms = (end - at[0]) * 1000 if at else 0
            if len(at) >= 3 and lead_ms >= SERVER["progress"]["lead_ms"]:
                return
            found = f"{len(at)} notifications, the first {lead_ms:.0f} ms before the result"
        raise AssertionError(found)

    async def elicitation(self):
        before = seen["elicitations"]
        answer = text(await self.call(SERVER["elicitation"][ERA]))
        assert seen["elicitations"] > before, f"nothing was asked: {answer}"
        assert "portcullis-answer" in answer, answer

    async def sampling(self):
        before = seen["samplings"]
        answer = text(await self.call(SERVER["sampling"][ERA]))
        assert seen["samplings"] > before, f"nothing was asked: {answer}"
        assert "portcullis-sample" in answer, answer

    async def roots(self):
        async def asked():
            return seen["roots"] > 0

        await until(asked, "the server did not ask for the roots")
        answer = text(await self.call(SERVER["roots"]))
        assert ROOT in answer, answer

    async def resources(self):
        found = await self.client.list_resources()
        assert getattr(found, "resources", found), "none is listed"
        assert await self.client.read_resource(SERVER["resource"]), "what was read is empty"

    async def prompts(self):
        found = await self.client.list_prompts()
        assert SERVER["prompt"] in [prompt.name for prompt in getattr(found, "prompts", found)], found
        assert (await self.client.get_prompt(SERVER["prompt"])).messages, "the prompt is empty"

    async def changes(self):
        if MODERN:
            async with self.client.listen(tools_list_changed=True) as subscription:
                await self.call(SERVER["changing"])
                async for _ in subscription:
                    return
            raise AssertionError("the stream ended without a notification")
        session, uri = self.client.session, SERVER["resource"]
        await session.subscribe_resource(uri)
        if "updating" in SERVER:

            async def updated():
                return uri in seen["updates"]

            await self.call(SERVER["updating"])
            await until(updated, "no update was told")
            await self.call(SERVER["updating"])
        await session.unsubscribe_resource(uri)

    async def parallel(self):
        slow = asyncio.create_task(self.call(SERVER["slow"]))
        echo = SERVER.get("echo")
        calls = [{"tool": echo, "arguments": {"message": f"m{n} "}} if echo else SERVER["call"] for n in range(20)]
        answers = await asyncio.gather(*[self.call(call) for call in calls])
        overtook = not slow.done()
        await slow
        for n, answer in enumerate(answers):
            assert (f"m{n} " if echo else SERVER["call"]["answer"]) in text(answer), f"{n} got: {text(answer)}"
        assert overtook or not echo, "the fast calls waited for the slow one"

    async def cancel(self):
        began = time.monotonic()
        task = asyncio.create_task(self.call(SERVER["endless"]))
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() and time.monotonic() - began < 2, "it was not cancelled"
        assert SERVER["call"]["answer"] in text(await self.call(SERVER["call"])), "the next call is not answered"

    async def large(self):
        # The server takes 100 KiB.
        message = "x" * (90 * 1024)
        assert message in text(await self.call({"tool": SERVER["echo"], "arguments": {"message": message}})), "it came back changed"

    async def exact_list(self):
        found = await self.names()
        assert found == sorted(SERVER["listed"]), found

    async def hidden_tool(self):
        tool = SERVER["hidden"]["tool"]
        await refused(self.call({"tool": tool}), -32602, f"Unknown tool: {tool}")

    async def hidden_resource(self):
        uri = SERVER["hidden"]["resource"]
        found = await self.client.list_resources()
        assert uri not in [str(resource.uri) for resource in getattr(found, "resources", found)], "it is listed"
        await refused(self.client.read_resource(uri), -32602 if MODERN else -32002, "")

    async def hidden_prompt(self):
        name = SERVER["hidden"]["prompt"]
        found = await self.client.list_prompts()
        assert name not in [prompt.name for prompt in getattr(found, "prompts", found)], "it is listed"
        await refused(self.client.get_prompt(name), -32602, "")

    async def constraint(self):
        await refused(self.call(SERVER["constrained"]), -31403, "")

    async def run(self):
        await step("connect", self.connect)
        await step("tools-list", self.tools_list)
        await step("tools-call", self.tools_call)
        await step("progress-before-result", self.progress)
        await step("elicitation", self.elicitation)
        await step("sampling", self.sampling)
        if "roots" in SERVER:
            await step("roots-asked-outside-of-calls", self.roots)
        await step("resources", self.resources)
        await step("prompts", self.prompts)
        # fastmcp has no call for `subscriptions/listen`.
        if LIBRARY == "python" or not MODERN:
            await step("told-of-changes", self.changes)
        await step("calls-in-parallel", self.parallel)
        if "endless" in SERVER:
            await step("cancel", self.cancel)
        if "echo" in SERVER:
            await step("large-argument", self.large)
        await gateway_step("list-is-what-may-be-called", self.exact_list)
        await refusal_step("hidden-tool-is-unknown", self.hidden_tool)
        await refusal_step("hidden-resource-is-unknown", self.hidden_resource)
        await refusal_step("hidden-prompt-is-unknown", self.hidden_prompt)
        await refusal_step("constraint-refuses", self.constraint)


async def main():
    closing = []
    async with (fastmcp_client if LIBRARY == "fastmcp" else official_client)() as (client, call):
        await Steps(client, call).run()
        closing.append(time.monotonic())

    async def close():
        assert time.monotonic() - closing[0] < 5, "closing took more than 5 s"

    await step("close", close)


try:
    asyncio.run(main())
except BaseException as error:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    print(f"the session broke: {type(error).__name__}: {str(error)[:300]}")
    sys.exit(1)
sys.exit(1 if failed else 0)
