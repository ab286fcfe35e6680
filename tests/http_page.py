"""Asks one of our own processes for a page, as a probe of readiness or Prometheus does."""

import urllib.error
import urllib.request


def page_at(url: str, seconds: float = 2) -> tuple[int, str]:
    """Returns the status and the text of a page, also where it is an error's; (0, "") where nobody answers within `seconds`."""
    try:
        with urllib.request.urlopen(url, timeout=seconds) as answer:  # noqa: S310 - loopback
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:  # or its body is a file that nobody has closed
            return refused.code, refused.read().decode()
    except OSError:
        return 0, ""
