"""What notebooks show: escaped, honest about deceiving characters, and the same in text."""

from hypothesis import given
from hypothesis import strategies as st

from syft_lab.widgets import cards

HOSTILE = "<img src=x onerror=alert(1)>\u202egnp.exe\x1b[31m\u200b&\"'"


def test_what_others_wrote_enters_the_page_as_text_only():
    page = cards.card(HOSTILE, cards.facts([(HOSTILE, HOSTILE)]), cards.table((HOSTILE,), [(HOSTILE,)], "none"), cards.note(HOSTILE),
                      cards.Gauge(HOSTILE, 1, 0, 0, 0, HOSTILE).html())  # fmt: skip
    assert "<img" not in page
    for deceiving in ("\u202e", "\x1b", "\u200b"):
        assert deceiving not in page
    assert "\\u202e" in page


@given(st.text())
def test_text_keeps_its_letters_and_loses_nothing_that_can_be_seen(text):
    assert "<" not in cards.safe(text)
    if text.isascii() and text.isprintable():
        assert cards.visible(text) == text


def test_a_gauge_says_the_same_in_text_and_html():
    gauge = cards.Gauge("clinic", 1.0, 0.3, 0.1, 0.2, "a note")
    for shown in (gauge.text(), gauge.html()):
        for word in ("clinic", "0.3", "0.1", "0.6", "0.2", "a note"):
            assert word in shown
    assert gauge.text().count("█") == 6
    assert 'aria-label="clinic: spent 0.3' in gauge.html()


def test_a_gauge_without_a_budget_and_one_that_is_full_do_not_overflow():
    assert "left 0 of 0" in cards.Gauge("x", 0, 0, 0, 1).text()
    assert cards.Gauge("x", 1, 1, 0, 0.5).text().count("█") == 20
    assert 'class="next" style="width:0.00%"' in cards.Gauge("x", 1, 1, 0, 0.5).html()


def test_an_empty_table_says_so_in_words():
    assert "nothing yet" in cards.table(("a",), [], "nothing yet")
