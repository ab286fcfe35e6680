"""Who is told that a message was given up: whoever sent it, once.

Not who is an agent and has answered us: two agents that fail would apologize to each other. Not a group that did not speak to this agent.
"""

from bus.records.records import GROUP, InboundMessage

SYSTEM_SENDER = "system"


def is_owed_an_apology(message: InboundMessage, agent_id: str) -> bool:
    """Returns whether the sender of a message that was given up is told so."""
    if message.hop_count or message.sender_type == SYSTEM_SENDER:
        return False
    if message.conversation_type != GROUP:
        return True
    return message.mentions_agent(agent_id)
