"""One session of the official Python client with a server on stdio.

    mcp_client.py legacy|modern CALL COMMAND [ARGUMENT...]

CALL is JSON, {"name": …, "arguments": …}. Prints one JSON object: what was negotiated, the tools
offered, and what came of the call. Whatever the client finds wrong with the server, such as a result
that does not fit its tool's output schema, is an exception and ends the script with a traceback.
"""

import asyncio
import json
import os
import sys

from mcp import Client, StdioServerParameters

# `auto` asks with `server/discover` and falls back to `initialize`; the version that comes out tells
# which of the two it was.
MODES = {"legacy": "legacy", "modern": "auto"}
# A server that hangs must fail a test, not stop the suite.
PATIENCE_SECONDS = 120


async def main(era, call, command):
    # Left alone, the client hands on six variables only; the tests choose the environment themselves.
    server = StdioServerParameters(command=command[0], args=command[1:], env=dict(os.environ))
    progress = []

    async def heard(_progress, _total, message):
        progress.append(message)

    async with Client(server, mode=MODES[era], read_timeout_seconds=PATIENCE_SECONDS) as client:
        tools = await client.list_tools()
        result = await client.call_tool(call["name"], call["arguments"], progress_callback=heard)
        return {
            "protocol_version": client.protocol_version,
            "server": client.server_info and client.server_info.name,
            "instructions": client.instructions,
            "tools": [tool.name for tool in tools.tools],
            "is_error": result.is_error,
            "structured_content": result.structured_content,
            "texts": [block.text for block in result.content],
            "progress": progress,
        }


print(json.dumps(asyncio.run(main(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:]))))
