"""The terms of the glossary are used in one way: none of the words that it rules out occurs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs" / "glossary.md"
READ = sorted(
    path
    for folder, pattern in (("compedu", "**/*.py*"), ("notebooks", "**/*.ipynb"), ("docs", "*.md"), (".", "README.md"))
    for path in (ROOT / folder).glob(pattern)
    if path.suffix in (".py", ".pyi", ".ipynb", ".md") and path != GLOSSARY
)


def rows() -> list[list[str]]:
    """The rows of the glossary's tables, without their heads: term, meaning, words that are not used."""
    lines = re.findall(r"^\|(.+)\|$", GLOSSARY.read_text(encoding="utf-8"), re.MULTILINE)
    cells = [[cell.strip() for cell in line.split("|")] for line in lines]
    return [row for row, below in zip(cells, [*cells[1:], [""]], strict=True) if "---" not in row + below]


def ruled_out() -> list[str]:
    return [word for _, _, words in rows() for word in words.split(", ") if word]


def occurrences(word: str, text: str) -> int:
    """How often `word` occurs as a whole word or phrase, in any case; a phrase may be broken at the end of a line."""
    phrase = r"\s+".join(map(re.escape, word.split()))
    return len(re.findall(rf"(?<![\w-]){phrase}(?![\w-])", text, re.IGNORECASE))


def test_the_glossary_is_a_sorted_list_of_terms_that_it_does_not_rule_out():
    terms = [term for term, _, _ in rows()]
    main = terms[: terms.index("zero-point") + 1]
    assert len(main) > 40 and main == sorted(main, key=str.lower) and len(set(main)) == len(main)
    text = "\n".join(term + "\n" + meaning for term, meaning, _ in rows())
    assert {word for word in ruled_out() if occurrences(word, text)} == set()


def test_whole_words_are_found_in_any_case_and_across_lines():
    assert occurrences("class scores", "Class\n scores, subclass scores, class scoresheet") == 1
    assert occurrences("topic", "Topic, topical, `topic`") == 2


@pytest.mark.parametrize("word", ruled_out())
def test_no_word_that_the_glossary_rules_out_is_used(word):
    found = [path.relative_to(ROOT).as_posix() for path in READ if occurrences(word, path.read_text(encoding="utf-8"))]
    assert found == [], f"the glossary says what is written instead of {word!r}"
