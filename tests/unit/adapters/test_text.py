"""Does text of unknown origin become readable, and does right text stay as it is?"""

from __future__ import annotations

import pytest

from aiom4b.adapters import text


def misread(value, encoding):
    return value.encode(encoding).decode("latin-1")


@pytest.mark.parametrize(
    ("right", "encoding"),
    [
        ("Die Verwandlung – für Hörer", "utf-8"),
        ("Война и мир, Том 1", "cp1251"),
        ("吾輩は猫である", "cp932"),
        ("“Don’t” – she said", "cp1252"),
        ("“Don’t", "cp1252"),  # whose bytes are valid Shift-JIS
    ],
)
def test_text_stored_in_the_wrong_code_page_is_repaired(right, encoding):
    wrong = misread(right, encoding)
    assert text.repaired(wrong, text.code_page([wrong])) == right


@pytest.mark.parametrize(
    "right", ["Français à l’été".replace("’", "'"), "Ærø", "Ünï", "Élève", "Plain", "Æøå æøå", "ÀÉ"]
)
def test_latin_text_that_is_right_is_left_alone(right):
    assert text.repaired(right, text.code_page([right])) == right


def test_one_title_of_three_letters_is_repaired_by_the_evidence_of_another():
    wrong = [misread("Том 1", "cp1251"), misread("Война и мир", "cp1251")]
    assert text.code_page(wrong[:1]) is None
    assert text.repaired(wrong[0], text.code_page(wrong)) == "Том 1"


def test_an_accented_name_beside_plain_letters_is_no_evidence_for_cyrillic():
    assert text.code_page(["Ñuñoa Ëëëë àéèç"]) is None


def test_a_line_has_no_controls_surrogates_or_turned_direction():
    assert text.line("  a\0b\x1b[31m\tc\n\udcff d\u202egnp.\ufeff ") == "ab[31m c dgnp."


def test_prose_keeps_its_line_breaks_and_nothing_else():
    assert text.prose("One\r\ntwo\x07\r\n\r\n  three\t four  ") == "One\ntwo\n\nthree four"


def test_endless_text_is_cut():
    assert len(text.line("x" * 5000)) == text.LINE_LIMIT
    assert len(text.prose("x" * 200_000)) == text.PROSE_LIMIT


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1251"])
def test_a_file_is_decoded_by_its_mark_or_by_evidence(encoding):
    assert text.decode("Глава первая".encode(encoding)) == "Глава первая"


def test_a_file_of_western_bytes_is_read_as_cp1252():
    assert text.decode("Größe für 5 €".encode("cp1252")) == "Größe für 5 €"
