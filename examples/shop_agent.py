"""A sync handler that calls a service of its own. The service sees each order once, whatever is killed in between.

`job.idempotency_key` is the same in a second run of the job; a service that honours it does not order twice.
"""

import json
import os
import urllib.error
import urllib.request
from http import HTTPStatus

from workers import Agent, BlockingChat, InboundMessage, JobContext, Retry

agent = Agent()


@agent.on_message("text")
def order(message: InboundMessage, chat: BlockingChat, job: JobContext) -> None:
    """Order what the text names."""
    with chat.typing():
        number = place_order(message.text, job.idempotency_key)
    chat.reply(f"Ordered, your number is {number}.")


@agent.on_message()
def refuse(message: InboundMessage, chat: BlockingChat) -> None:
    """Whatever is no text."""
    chat.reply(f"I cannot read a message of type {message.payload['type']} yet. Please write what you want to order.")


def place_order(what: str, idempotency_key: str) -> str:
    """The order's number. Raises Retry while the shop is busy."""
    request = urllib.request.Request(  # noqa: S310 - the owner's own address
        os.environ["SHOP_URL"],
        data=json.dumps({"what": what}).encode(),
        headers={"Content-Type": "application/json", "Idempotency-Key": idempotency_key},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            return str(json.load(response)["number"])
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.SERVICE_UNAVAILABLE:
            raise Retry(after_seconds=10) from None
        raise
