import pytest

from dsnn.suggest import did_you_mean


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("betta", ["beta", "tau"], "did you mean 'beta'?"),
        ("epochs", ["train.epochs", "svi.lam"], "did you mean 'train.epochs'?"),
        ("svi.lamb", ["svi.lam", "population.lam"], "did you mean 'svi.lam' or 'population.lam'?"),
        ("LIF", ["nir.LIF", "spyx.IF", "norse.LIF"], "did you mean 'nir.LIF' or 'norse.LIF'"),
        (3, [30, "x"], "did you mean '30'?"),
        ("zzz", ["beta"], "leave it out."),
    ],
)
def test_a_misspelt_name_is_answered_with_the_nearest(name: object, known: list[object], said: str) -> None:
    assert did_you_mean(name, known).startswith(said)


def test_what_is_said_otherwise_and_how_many_are_the_callers_choice() -> None:
    assert did_you_mean("q", ["beta"], "see --help.") == "see --help."
    assert did_you_mean("bet", ["beta", "bet1", "bet2"], most=1).count("'") == 2
