"""Lists and calls tools, and goes on after each refusal: mcp_client.py URL SECRET."""
import asyncio, sys

from mcp import Client


async def main(url, secret):
    async with Client(url, read_timeout_seconds=20) as client:
        print("tools", *sorted(tool.name for tool in (await client.list_tools()).tools))

        async def call(name, **arguments):
            try:
                result = await client.call_tool(name, arguments)
                print(name, "ok", result.content[0].text)
            except Exception as error:
                reason = str(error).split("(", 1)[-1].split(")")[0]
                print(name, type(error).__name__, getattr(error, "code", None), reason)

        await call("note", text="fine words")
        await call("note", text="the token is " + secret)
        await call("read")
        await call("note", text="and more")


asyncio.run(main(*sys.argv[1:3]))
