"""Bodies of answers as endpoints that call themselves OpenAI-compatible have sent them, and what a person is to see of each.

Where a body was reported, the report is named: a body changes only with what somebody has seen.
"""

import json
from typing import NamedTuple

from tests.workers.llm.endpoint import chunk, sse
from workers.errors import LLMBusy, LLMCut, LLMError, LLMRefused, LLMTooLong

WHOLE = "Grüße 👋🏽!"
_RAW = WHOLE.encode()
_TOO_LONG = "the request exceeds the available context size. try increasing the context size or enable context shift"


class Body(NamedTuple):
    """`text`: what a person sees; an exception's type for what is no answer."""

    bytes: bytes
    text: str | type[LLMError]


def _split_over_events() -> bytes:
    """Each byte of the text in an event of its own: no event is UTF-8."""
    parts = [b'{"choices":[{"delta":{"content":"' + _RAW[at : at + 1] + b'"}}]}' for at in range(len(_RAW))]
    return sse(*parts)


def _halves() -> bytes:
    """Each half of a character of UTF-16 in an event of its own, as an escape."""
    units = _RAW.decode().encode("utf-16-be")
    return sse(
        *(
            b'{"choices":[{"delta":{"content":"\\u%02x%02x"}}]}' % (units[at], units[at + 1])
            for at in range(0, len(units), 2)
        )
    )


def _json(value: object, **how: int) -> bytes:
    return json.dumps(value, indent=how.get("indent")).encode()


_MESSAGE = {"choices": [{"index": 0, "message": {"role": "assistant", "content": WHOLE}, "finish_reason": "stop"}]}
_USAGE = {"prompt_tokens": 7, "completion_tokens": 2}
_A, _B = chunk(WHOLE[:4]), chunk(WHOLE[4:])
_STOP = chunk(finish="stop")

BODIES = {
    "as it should be": Body(sse(chunk("", role="assistant"), _A, _B, _STOP), WHOLE),
    "only [DONE], no finish reason (llm proxies of Gemini)": Body(sse(_A, _B), WHOLE),
    "neither: the body ends": Body(sse(_A, _B, done=False), WHOLE),
    "the last event without a newline (llama.cpp b10603)": Body(sse(_A, _B, done=False)[:-2], WHOLE),
    "[DONE] without an empty line (llama.cpp b10603)": Body(sse(_A, _B)[:-2], WHOLE),
    "[DONE] without a space": Body(sse(_A, _B, done=False) + b"data:[DONE]\n\n", WHOLE),
    "text behind [DONE]": Body(sse(_A, _B) + sse(chunk("more"), b"<html>"), WHOLE),
    "a finish reason with each chunk": Body(
        sse(chunk(WHOLE[:4], finish="stop"), chunk(WHOLE[4:], finish="stop")), WHOLE
    ),
    "text behind the finish reason": Body(sse(_A, _STOP, _B, _STOP), WHOLE),
    "finish reason '' instead of null (sglang 3912)": Body(sse(chunk(WHOLE, finish=""), chunk(finish="")), WHOLE),
    "choices null": Body(sse({"choices": None}, _A, {"choices": None, "usage": _USAGE}, _B), WHOLE),
    "choices empty (Azure's prompt filter, usage)": Body(
        sse({"choices": [], "prompt_filter_results": []}, _A, _B), WHOLE
    ),
    "choices one object": Body(sse({"choices": {"delta": {"content": WHOLE}}}), WHOLE),
    "delta null on the last chunk (agent-framework 5734)": Body(
        sse(_A, _B, {"choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]}), WHOLE
    ),
    "content null (llama.cpp)": Body(
        sse(chunk(role="assistant", content=None), {"choices": [{"delta": {"content": None}}]}, _A, _B), WHOLE
    ),
    "null and numbers among the events (pi 2466)": Body(sse(None, _A, 3, "x", _B), WHOLE),
    "usage null": Body(sse({**_A, "usage": None}, {**_B, "usage": None}), WHOLE),
    "usage fractional, negative, NaN, huge, text": Body(
        sse(
            {**_A, "usage": {"prompt_tokens": 1.5, "completion_tokens": -1}},
            b'{"choices":[],"usage":{"prompt_tokens":NaN,"completion_tokens":1e400}}',
            {**_B, "usage": {"prompt_tokens": "many", "completion_tokens": [1]}},
            {"usage": "free"},
        ),
        WHOLE,
    ),
    "usage in a chunk of its own, before the end": Body(sse(_A, {"usage": _USAGE}, _B), WHOLE),
    "content as a list of parts": Body(
        sse(
            chunk([{"type": "text", "text": WHOLE[:4]}, WHOLE[4:6]]),
            chunk([{"type": "text", "text": {"value": WHOLE[6:]}}]),
        ),
        WHOLE,
    ),
    "thoughts as parts (Magistral)": Body(
        sse(
            chunk([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": WHOLE}])
        ),
        WHOLE,
    ),
    "other choices beside the first": Body(
        sse({"choices": [{"index": 1, "delta": {"content": "no"}}, {"index": 0, "delta": {"content": WHOLE}}]}), WHOLE
    ),
    "unknown fields of any kind": Body(sse({**_A, "object": 3, "id": None, "service_tier": {}}, _B), WHOLE),
    "messages instead of deltas": Body(sse({"choices": [{"message": {"content": WHOLE}}]}), WHOLE),
    "the whole message again behind its deltas": Body(
        sse(_A, _B, {"choices": [{"message": {"content": WHOLE}}]}), WHOLE
    ),
    "text instead of deltas (completions)": Body(
        sse({"choices": [{"text": WHOLE[:4]}]}, {"choices": [{"text": WHOLE[4:]}]}), WHOLE
    ),
    "data: with nothing behind it": Body(b"data:\n\ndata: \n\n" + sse(_A, done=False) + b"data:\n\n" + sse(_B), WHOLE),
    "an event over several lines of data": Body(
        b'data: {"choices": [\ndata: {"delta": {"content":\ndata: "Hi"}}]}\n\n', "Hi"
    ),
    "no empty lines between events": Body(sse(_A, _B).replace(b"\n\n", b"\n"), WHOLE),
    "CR alone": Body(sse(_A, _B).replace(b"\n", b"\r"), WHOLE),
    "CR and LF": Body(sse(_A, _B).replace(b"\n", b"\r\n"), WHOLE),
    "a BOM before the first event": Body(b"\xef\xbb\xbf" + sse(_A, _B), WHOLE),
    "comments (OpenRouter), pings, ids, retry": Body(
        b': OPENROUTER PROCESSING\n\nid: 1\nretry: 10\nevent: ping\ndata: {"type": "ping"}\n\n' + sse(_A, _B), WHOLE
    ),
    "comments sent on as data (llm-gateway 2053)": Body(
        sse(b": OPENROUTER PROCESSING", _A, b": OPENROUTER PROCESSING", _B), WHOLE
    ),
    "such comments without empty lines between": Body(
        sse(b": OPENROUTER PROCESSING", _A, b": ping", _B).replace(b"\n\n", b"\n"), WHOLE
    ),
    "a role alone, again with each piece (Azure)": Body(
        sse(chunk(role="assistant"), chunk(WHOLE[:4], role=None), chunk(WHOLE[4:], role="assistant")), WHOLE
    ),
    "a filter's notes in the place of a delta (Azure)": Body(
        sse(
            _A,
            {"id": "", "choices": [{"index": 0, "finish_reason": None, "content_filter_results": {"hate": {}}}]},
            _B,
            _STOP,
            {"choices": [{"index": 0, "finish_reason": None, "content_filter_offsets": {"check_offset": 44}}]},
        ),
        WHOLE,
    ),
    "another id with each chunk (LiteLLM 1571)": Body(sse({**_A, "id": "a"}, {**_B, "id": "b"}), WHOLE),
    "empty lines before plain JSON (DeepSeek under load)": Body(b"\n\n\n\r\n" + _json(_MESSAGE), WHOLE),
    "garbage behind [DONE]": Body(sse(_A, _B) + b'data: {"choices": [{"delta": {"content": "mo\n\n\x00\xff', WHOLE),
    "the end said twice": Body(sse(_A, _B, _STOP, _STOP) + b"data: [DONE]\n\n", WHOLE),
    "each byte in an event of its own": Body(_split_over_events(), WHOLE),
    "each half of a character in an event of its own (eliza 30904)": Body(_halves(), WHOLE),
    "half a character, and no more": Body(sse(b'{"choices":[{"delta":{"content":"Hi\\ud83d"}}]}'), "Hi\ufffd"),
    "plain JSON": Body(_json(_MESSAGE), WHOLE),
    "plain JSON over many lines": Body(_json(_MESSAGE, indent=2), WHOLE),
    "plain JSON with a BOM": Body(b"\xef\xbb\xbf" + _json(_MESSAGE), WHOLE),
    "a line of JSON for each chunk": Body(b"\n".join([_json(_A), _json(_B), b""]), WHOLE),
    "refusal only": Body(sse(chunk(refusal="I cannot "), chunk(refusal="do that."), _STOP), "I cannot do that."),
    "refusal null beside content": Body(sse(chunk(WHOLE, refusal=None)), WHOLE),
    "reasoning_content": Body(sse(chunk(reasoning_content="hm"), chunk(reasoning="hm"), chunk(WHOLE)), WHOLE),
    "<think> … </think>": Body(sse(chunk("<th"), chunk("ink>hm</thi"), chunk("nk>\n\n" + WHOLE)), WHOLE),
    "</think> that nothing opens (templates of QwQ and Qwen3)": Body(
        sse(chunk("hm\n"), chunk("</think>\n\n" + WHOLE)), WHOLE
    ),
    "a tag that is talked of": Body(
        sse(chunk("The tag <think> opens, </think> ends it.")), "The tag <think> opens, </think> ends it."
    ),
    "thoughts and answer in gpt-oss's own marks (macprovider 743)": Body(
        sse(
            chunk("<|channel|>analysis<|mess"),
            chunk("age|>hm<|end|><|start|>assistant<|channel|>final<|message|>" + WHOLE),
        ),
        WHOLE,
    ),
    "thoughts in Kimi's marks": Body(sse(chunk("\u25c1think\u25b7hm\u25c1/think\u25b7"), chunk(WHOLE)), WHOLE),
    "thoughts that do not end": Body(sse(chunk("<think>hm"), _STOP), LLMCut),
    "tool calls only": Body(
        sse(chunk(tool_calls=[{"index": 0, "function": {"name": "x"}}]), chunk(finish="tool_calls")), LLMCut
    ),
    "nothing at all (LM Studio 2339)": Body(sse(_STOP), LLMCut),
    "an empty body": Body(b"", LLMCut),
    "white space alone": Body(sse(chunk(" \n"), _STOP), LLMCut),
    "a page of HTML": Body(b"<html><body>Sign in, please</body></html>", LLMCut),
    "half an event": Body(sse(_A, done=False) + b'data: {"choices": [{"del', LLMCut),
    "something that is no JSON among the events": Body(sse(_A, b"oops", _B), LLMCut),
    "an error in mid-stream": Body(sse(_A, {"error": {"message": "boom"}}, _B), LLMCut),
    "an error in mid-stream, as a text": Body(sse(_A, {"error": "boom"}), LLMCut),
    "an error beside empty choices (OmniRoute 8210)": Body(
        sse({"choices": [], "error": {"code": 502, "message": "x"}}), LLMError
    ),
    "an error in a choice (OpenRouter)": Body(sse(_A, {"choices": [{"delta": {}, "error": {"message": "x"}}]}), LLMCut),
    "finish reason error": Body(sse(_A, chunk(finish="error")), LLMCut),
    "finish reason abort, and a polite end (vLLM 57082)": Body(sse(_A, chunk(finish="abort")), LLMCut),
    "finish reason insufficient_system_resource (DeepSeek)": Body(
        sse(_A, chunk("", finish="insufficient_system_resource")), LLMCut
    ),
    "finish reason network_error (GLM)": Body(sse(_A, chunk(finish="network_error")), LLMCut),
    "finish reason of a call that is none (Gemini)": Body(
        sse(chunk(finish="function_call_filter: MALFORMED_FUNCTION_CALL")), LLMCut
    ),
    "finish reason as an object that says abort (SGLang)": Body(
        sse(_A, chunk(finish={"type": "abort", "message": "x"})), LLMCut
    ),
    "a call that the model has miswritten, in the stream (Groq)": Body(
        sse(_A, {"error": {"message": "x", "code": "tool_use_failed", "failed_generation": "{", "status_code": 400}}),
        LLMCut,
    ),
    "an error in a list (Gemini)": Body(
        _json([{"error": {"code": 429, "message": "x", "status": "RESOURCE_EXHAUSTED"}}]), LLMBusy
    ),
    "event: error with words (mistral.rs 1874)": Body(
        sse(_A, done=False) + b"event: error\ndata: Number of choices\n\n", LLMCut
    ),
    "event: error with JSON (LM Studio)": Body(b'event: error\ndata: {"error": {"message": "x"}}\n\n', LLMCut),
    "error: instead of data: (llama.cpp b5966)": Body(
        b'error: {"code":400,"message":"' + _TOO_LONG.encode() + b'"}\n\ndata: [DONE]\n\n', LLMTooLong
    ),
    "an error without any framing (lemonade 2826)": Body(
        _json({"error": {"code": 400, "message": _TOO_LONG}}), LLMTooLong
    ),
    "the context is too long, with status 200 (LM Studio 2322)": Body(
        sse({"error": {"message": "Trying to keep the first 111490 tokens when context the overflows."}}), LLMTooLong
    ),
    "an error of vLLM": Body(
        _json({"object": "error", "message": "bad", "type": "BadRequestError", "code": 400}), LLMRefused
    ),
    "too many requests, in the stream": Body(sse({"error": {"code": 429, "message": "slow down"}}), LLMBusy),
    "too many requests, by name": Body(sse({"error": {"type": "rate_limit_exceeded", "message": "x"}}), LLMBusy),
    "overloaded, by name": Body(sse({"type": "error", "error": {"type": "overloaded_error", "message": "x"}}), LLMBusy),
    "error null beside content": Body(sse({**_A, "error": None}, {**_B, "error": None}), WHOLE),
}
