"""What is taken for something else by who reads it: attacks by look, and texts of all kinds of people that are left as they are."""

import json

import pytest

from workers.talk.cards import Approval
from workers.talk.lookalikes import lookalikes_in

pytestmark = pytest.mark.pure

ATTACKS = {
    "a Cyrillic letter among Latin ones": "p\u0430ypal.com",
    "a Cyrillic letter among Latin ones, in a text that has honest ones too": "\u0423\u0434\u0430\u043b\u0438 p\u0430ypal.com",
    "Greek ones": "\u03bfpen\u03bfffice",
    "a name in Cyrillic letters that all look Latin": "\u0430\u0440\u0440\u04cf\u0435.com",
    "such a name beside other words in Cyrillic letters": "\u0434\u0430: \u0430\u0440\u0440\u04cf\u0435.com",
    "in Greek ones": "\u039d\u0399\u039a\u0395",
    "in Armenian ones": "g\u0585\u0585gle",
    "in Cherokee ones": "\u13aaoogle",
    "wide letters": "\uff52\uff4d -rf",
    "bold ones": "\U0001d42b\U0001d426 -rf",
    "letters in circles": "\u24d0dmin",
    "Roman numerals": "\u217cogin",
    "a slash that is none": "evil.com\u2215good.com",
    "a fraction's slash": "etc\u2044passwd",
    "a dot that is none": "evil\u2024com",
    "a hyphen that is none": "rm \u2010rf",
    "a minus": "rm \u2212rf",
    "an asterisk that is none": "a\u2217",
    "a colon that is none": "https\ua789//good",
    "a semicolon that is a Greek question mark": "ls\u037e rm",
    "letters of phonetics": "\u0251dmin",
    "marks upon marks": "a\u0335\u0336\u0337\u0338b",
    "a mark on a sign": "/\u0338etc",
    "a mark around a letter": "a\u20e0",
}


@pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS)
def test_what_is_taken_for_something_else_is_shown_as_what_it_is(text: str) -> None:
    assert lookalikes_in(text)
    details = str(Approval("Sure?", arguments={"at": text, text: 1}).built("0" * 26)["details"])
    assert "\\u" in details
    shown = "\n".join(details.split("\n")[1:-1])
    assert json.loads(shown) == {"at": text, text: 1}, "and what it is can be read"
    assert not lookalikes_in(shown)


@pytest.mark.parametrize(
    "text",
    [
        "Удали все файлы из папки «Отчёты», пожалуйста",
        "сор и нет",
        "Διέγραψε όλα τα αρχεία",
        "删除所有文件，好吗？（是）",
        "ファイルを削除しますか？ＯＫ",
        "파일을 삭제하세요",
        "ลบไฟล์ทั้งหมดที่นี่",
        "सभी फ़ाइलें हटाओ",
        "احذف جميع الملفات",
        "Xóa tất cả các tệp được không",
        "Tüm dosyaları sil, lütfen: ışık",
        "Löschen Sie alle Dateien – bitte “sofort”… 25 m², 3 € ½ ™",
        "μ = 3, Δt = 5 µs, π",
        "Ann’s file 👩🏽‍🚀 ✅ é",
        "Ջնջել բոլոր ֆայլերը",
    ],
)
def test_what_people_write_in_their_own_script_is_left_as_it_is(text: str) -> None:
    assert [text[at] for at in sorted(lookalikes_in(text))] == []


def test_the_lines_of_a_text_in_its_own_script_stay_as_they_are() -> None:
    text = "Привет\nсосед, как дела?\n\tтётя"
    details = str(Approval("Sure?", arguments={"text": text}).built("0" * 26)["details"])
    assert json.dumps(text, ensure_ascii=False) in details


def test_a_backslash_stands_between_the_words_of_a_path() -> None:
    details = str(Approval("Sure?", arguments={"да": "C:\\\u0441\u043e\u0440"}).built("0" * 26)["details"])
    assert "\\u0441\\u043e\\u0440" in details
