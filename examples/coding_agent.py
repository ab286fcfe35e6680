"""A coding agent that asks its owner, on their phone, before it runs a command: `python coding_agent.py CONVERSATION make deploy`.

It speaks MCP to `hashee-agent mcp`, as coding agents do by a few lines of their settings (docs/mcp.md). The agent that runs says by
HASHEE_MCP_CONVERSATIONS where programs may ask; here HASHEE_AGENT_ID and HASHEE_STATE_DIR say which agent that is.
"""

import os
import shlex
import subprocess
import sys

import mcp
import trio

OURS = {name: value for name, value in os.environ.items() if name in ("HASHEE_AGENT_ID", "HASHEE_STATE_DIR", "PATH")}
SERVER = mcp.StdioServerParameters(command="hashee-agent", args=["mcp"], env=OURS)


async def may_run(conversation: str, command: str) -> bool:
    question = {"conversation_id": conversation, "kind": "approval", "question": "May I run this?", "details": command}
    async with mcp.Client(SERVER, client_info=mcp.types.Implementation(name="coding agent", version="1")) as phone:
        answer = await phone.call_tool("ask_person", question)
    if answer.is_error:
        sys.exit(str(answer.content))
    return (answer.structured_content or {}).get("approved") is True


if __name__ == "__main__":
    _, conversation, *command = sys.argv
    if not trio.run(may_run, conversation, shlex.join(command)):
        sys.exit("The answer was no.")
    sys.exit(subprocess.run(command, check=False).returncode)
