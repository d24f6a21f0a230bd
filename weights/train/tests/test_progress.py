"""What long work says of itself where there is no terminal."""
from discon_train.progress import bar


def test_work_that_takes_long_says_where_it_is(capsys):
    assert list(bar(range(3), "latents", every=-1.0)) == [0, 1, 2]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" left ")[0] for line in lines] == ["latents 1/3", "latents 2/3"]


def test_work_that_is_done_soon_says_nothing(capsys):
    assert list(bar(["a", "b"], "pictures")) == ["a", "b"]
    assert capsys.readouterr().out == ""
