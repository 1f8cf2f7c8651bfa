"""Does the official Python client work through this endpoint?

usage: python_client.py URL legacy|modern
PORTCULLIS_KEY, when set, is shown as the client's API key, and the steps that only a gateway can pass are run too.
Prints one line per step in the suite's own form, so that one reader judges both.
"""

import asyncio
import os
import sys
import time

import httpx2
import mcp_types as types
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

URL, ERA = sys.argv[1:3]
KEY = os.environ.get("PORTCULLIS_KEY")
MODERN = ERA == "modern"
ANSWER = {"response": "portcullis-answer", "name": "portcullis-answer"}
ELICITING = "test_input_required_result_elicitation" if MODERN else "test_elicitation"
STEP_SECONDS = 25

failed = 0
elicited = 0


async def step(name, body):
    global failed
    try:
        await asyncio.wait_for(body(), STEP_SECONDS)
        print(f"✓ {name}: 1 passed, 0 failed")
    except Exception as error:
        failed += 1
        print(f"✗ {name}: 0 passed, 1 failed\n  {type(error).__name__}: {str(error)[:300]}")


async def gateway_step(name, body):
    if KEY:
        await step(name, body)
    else:
        print(f"- {name}: needs a gateway")


async def answer_elicitation(_context, _params):
    global elicited
    elicited += 1
    return types.ElicitResult(action="accept", content=ANSWER)


def text(result):
    return "".join(getattr(part, "text", "") for part in result.content)


async def refused(call, code, words):
    try:
        answer = await call
    except MCPError as error:
        assert error.error.code == code, f"refused with {error.error.code} ({error.error.message}), not with {code}"
        assert words in error.error.message, f"the refusal says: {error.error.message}"
        return
    raise AssertionError(f"not refused: {text(answer)}")


async def steps(client):
    async def connect():
        expected = "2026-07-28" if MODERN else "2025-11-25"
        assert client.protocol_version == expected, f"negotiated {client.protocol_version}"

    async def names():
        return sorted(tool.name for tool in (await client.list_tools()).tools)

    async def tools_list():
        found = await names()
        assert "test_simple_text" in found and ELICITING in found, found

    async def tools_call():
        answer = text(await client.call_tool("test_simple_text", {}))
        assert "simple text response" in answer, answer

    async def progress():
        # The server takes 100 ms from the first notification to the result. A gateway that holds back the stream
        # hands over all at once, every time; a busy machine may do so once.
        found = ""
        for _ in range(3):
            at = []

            async def note(_progress, _total=None, _message=None):
                at.append(time.monotonic())

            await client.call_tool("test_tool_with_progress", {}, progress_callback=note)
            end = time.monotonic()
            await asyncio.sleep(0.05)
            lead_ms = (end - at[0]) * 1000 if at else 0
            if len(at) >= 3 and lead_ms >= 50:
                return
            found = f"{len(at)} notifications, the first {lead_ms:.0f} ms before the result"
        raise AssertionError(found)

    async def elicitation():
        before = elicited
        answer = text(await client.call_tool(ELICITING, {} if MODERN else {"message": "what is the answer"}))
        assert elicited > before, f"nothing was asked: {answer}"
        assert "portcullis-answer" in answer, answer

    async def exact_list():
        found = await names()
        assert found == sorted(os.environ["PORTCULLIS_TOOLS"].split()), found

    async def hidden_tool():
        await refused(client.call_tool("test_image_content", {}), -32602, "Unknown tool: test_image_content")

    async def constraint():
        await refused(client.call_tool("test_elicitation", {"message": "DROP TABLE users"}), -31403, "")

    await step("connect", connect)
    await step("tools-list", tools_list)
    await step("tools-call", tools_call)
    await step("progress-before-result", progress)
    await step("elicitation", elicitation)
    await gateway_step("list-is-what-may-be-called", exact_list)
    await gateway_step("hidden-tool-is-unknown", hidden_tool)
    await gateway_step("constraint-refuses", constraint)


async def main():
    headers = {"Authorization": f"Bearer {KEY}"} if KEY else {}
    closing = []
    async with httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(30, read=60)) as http:
        target = streamable_http_client(URL, http_client=http)
        mode = "auto" if MODERN else "legacy"
        async with Client(target, mode=mode, elicitation_callback=answer_elicitation, read_timeout_seconds=20) as client:
            await steps(client)
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
