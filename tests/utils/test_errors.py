"""Mistakes of the user: one sentence on stderr, exit code 2, no stack trace."""

import pytest

from utils.errors import UserError, check_name, nearest, run


def test_a_known_name_passes():
    check_name("x.name", "b", ["a", "b"])


@pytest.mark.parametrize("valid", [["alpha", "beta"], ("beta", "alpha"), {"alpha": 1, "beta": 2}, {"beta", "alpha"}])
def test_an_unknown_name_is_named_with_the_nearest_and_all_others(valid):
    with pytest.raises(UserError) as caught:
        check_name("x.name", "alhpa", valid)
    text = str(caught.value)
    assert text == "x.name 'alhpa' is unknown; did you mean 'alpha'? Valid are: alpha, beta."


def test_a_name_that_is_close_to_none_gets_no_guess():
    with pytest.raises(UserError) as caught:
        check_name("x.name", "zzz", ["alpha", "beta"])
    assert "did you mean" not in str(caught.value)
    assert "alpha, beta" in str(caught.value)


def test_the_empty_name_is_unknown():
    with pytest.raises(UserError):
        check_name("x.name", "", ["alpha"])


def test_the_nearest_comes_first_and_once():
    assert nearest("beat", ["alpha", "beta", "gamma"]) == "did you mean 'beta'? Valid are: beta, alpha, gamma"


def test_no_names_at_all():
    assert "Valid are" in nearest("x", [])


@pytest.mark.parametrize("code", [0, 75])
def test_the_exit_code_is_that_of_the_script(monkeypatch, code):
    monkeypatch.setattr("sys.argv", ["train.py", "a", "b=c"])
    seen = []
    with pytest.raises(SystemExit) as caught:
        run(lambda arguments: seen.append(arguments) or code)
    assert caught.value.code == code
    assert seen == [["a", "b=c"]]


def test_a_mistake_is_a_sentence_and_code_2(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train.py"])

    def main(arguments):
        raise UserError("The sky is 'green' and must be blue.")

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert err == "error: The sky is 'green' and must be blue.\n"
    assert out == ""


def test_a_mistake_of_ours_keeps_its_stack_trace(monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py"])
    with pytest.raises(ZeroDivisionError):
        run(lambda arguments: 1 // 0)
