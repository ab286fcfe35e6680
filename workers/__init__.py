"""The API that a handler is written against, and the worker process that runs it.

from workers import Agent

agent = Agent()

@agent.on_message()
async def answer(message, chat):
    await chat.reply(f"You said: {message.text}")
"""

import runpy
import sys
from pathlib import Path

if sys.argv[:1] == ["-m"]:  # `python -m workers`, which comes by here before it reads workers/__main__.py
    runpy.run_path(str(Path(__file__).parents[1] / "host" / "entrance.py"), run_name="entrance")

from bus.records.events import Event
from bus.records.records import InboundMessage
from workers.errors import (
    BadAsk,
    BadCard,
    BadFile,
    BadHandler,
    BadReminder,
    BadReply,
    BadState,
    BadStep,
    CannotStart,
    ChatClosed,
    Fail,
    FileBroken,
    FileDailyLimit,
    FileError,
    FileGone,
    FileNotSaved,
    FileNotText,
    FileRefused,
    FilesOff,
    FilesUnreachable,
    FileTooLarge,
    HandlerError,
    HistoryNotKept,
    JournalFull,
    LLMBusy,
    LLMCut,
    LLMError,
    LLMMisfit,
    LLMNoPictures,
    LLMRefused,
    LLMTooLong,
    LLMUnreachable,
    NoAnswer,
    NotSent,
    OutcomeUnknown,
    Retry,
    SpoolFull,
    SpoolUnusable,
    StateBeforeAsk,
    StateInTool,
    StateTooLarge,
    StoreAfterWords,
    StoreFull,
    StoreInTool,
    StoreLimit,
    StoreMixed,
    TextTooLong,
    ToolDenied,
    ToolError,
    ToolTimeout,
    TooManyReminders,
    TooManyWaits,
    WaitsFull,
)
from workers.files.inbound import InboundFile, Message, Quoted
from workers.files.outgoing import Audio, File, Image, Video
from workers.handling.agent import Agent
from workers.handling.blocking import (
    BlockingChat,
    BlockingFile,
    BlockingJob,
    BlockingLLM,
    BlockingMessage,
    BlockingQuoted,
    BlockingSent,
    BlockingStore,
    BlockingStream,
)
from workers.handling.budget import Budget
from workers.handling.context import JobContext
from workers.handling.routing import Router
from workers.kept.history import History, ToolUse, Turn
from workers.kept.store import Store
from workers.kept.words import Words
from workers.llm.model import LLM
from workers.mcp.server import MCP
from workers.outside import BlockingOutside, BlockingOutsideStream, Outside, OutsideStream, Receipt
from workers.talk.answers import Answer
from workers.talk.cards import Action, App, Approval, Field, Form, Info, Media, MediaItem, Option, Progress
from workers.talk.chat import Chat
from workers.talk.sent import Sent
from workers.talk.stream import Stream

Job = JobContext

__all__ = [
    "LLM",
    "MCP",
    "Action",
    "Agent",
    "Answer",
    "App",
    "Approval",
    "Audio",
    "BadAsk",
    "BadCard",
    "BadFile",
    "BadHandler",
    "BadReminder",
    "BadReply",
    "BadState",
    "BadStep",
    "BlockingChat",
    "BlockingFile",
    "BlockingJob",
    "BlockingLLM",
    "BlockingMessage",
    "BlockingOutside",
    "BlockingOutsideStream",
    "BlockingQuoted",
    "BlockingSent",
    "BlockingStore",
    "BlockingStream",
    "Budget",
    "CannotStart",
    "Chat",
    "ChatClosed",
    "Event",
    "Fail",
    "Field",
    "File",
    "FileBroken",
    "FileDailyLimit",
    "FileError",
    "FileGone",
    "FileNotSaved",
    "FileNotText",
    "FileRefused",
    "FileTooLarge",
    "FilesOff",
    "FilesUnreachable",
    "Form",
    "HandlerError",
    "History",
    "HistoryNotKept",
    "Image",
    "InboundFile",
    "InboundMessage",
    "Info",
    "Job",
    "JobContext",
    "JournalFull",
    "LLMBusy",
    "LLMCut",
    "LLMError",
    "LLMMisfit",
    "LLMNoPictures",
    "LLMRefused",
    "LLMTooLong",
    "LLMUnreachable",
    "Media",
    "MediaItem",
    "Message",
    "NoAnswer",
    "NotSent",
    "Option",
    "OutcomeUnknown",
    "Outside",
    "OutsideStream",
    "Progress",
    "Quoted",
    "Receipt",
    "Retry",
    "Router",
    "Sent",
    "SpoolFull",
    "SpoolUnusable",
    "StateBeforeAsk",
    "StateInTool",
    "StateTooLarge",
    "Store",
    "StoreAfterWords",
    "StoreFull",
    "StoreInTool",
    "StoreLimit",
    "StoreMixed",
    "Stream",
    "TextTooLong",
    "TooManyReminders",
    "TooManyWaits",
    "ToolDenied",
    "ToolError",
    "ToolTimeout",
    "ToolUse",
    "Turn",
    "Video",
    "WaitsFull",
    "Words",
]
