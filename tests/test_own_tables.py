"""Tables, mapped arrays and folders of pictures: what becomes of them, and what is said of bad ones."""

import numpy as np
import pytest

from dsnn import data
from dsnn.config import OWN, DataConfig
from dsnn.run import schema

TEXT = """id,colour,size,when,label
1,red,1.5,2020-01-01,yes
2,blue,?,2020-01-02,no
3,red,3.5,2020-01-03,yes
4,,4.5,2020-01-04,no
5,blue,5.5,2020-01-05,yes
6,blue,6.5,2020-01-06,no
7,red,7.5,2020-01-07,yes
8,red,8.5,2020-01-08,no
9,blue,9.5,2020-01-09,yes
10,red,10.5,2020-01-10,no
11,red,11.5,2020-01-11,yes
12,red,12.5,2020-01-12,no
"""


@pytest.fixture
def pandas():
    return pytest.importorskip("pandas")


@pytest.fixture
def file(tmp_path, pandas):
    place = tmp_path / "t.csv"
    place.write_text(TEXT)
    return place


def every(split):
    return np.concatenate([split.train.x, split.val.x, split.test.x])


# Tables


def test_a_table_becomes_numbers_categories_and_named_classes(file):
    split = data.load("table", path=file, drop=["id", "when"], test_fraction=0.25, val_fraction=0.0)
    assert (split.classes, split.class_names, split.task) == (2, ("no", "yes"), "classification")
    assert [len(part.y) for part in (split.train, split.val, split.test)] == [9, 0, 3]
    x = every(split)
    assert x.shape == (12, 3)
    assert x.dtype == np.float32
    rows = {tuple(row) for row in x[:, :2]}
    assert rows == {(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)}  # blue, red; one is missing
    gap = np.flatnonzero(~np.isin(x[:, 2], np.arange(1.5, 13)))
    known = [value for value in split.train.x[:, 2] if value != x[gap[0], 2]] if len(gap) else split.train.x[:, 2]
    assert np.median(known) in x[:, 2]  # the question mark is a gap, and holds the training median
    assert split.notes[0] == "the last column, 'label', is the target (data.options.target)."
    assert split.extra["columns"].tolist() == ["colour=blue", "colour=red", "size"]
    assert any("filled in, those of column 'size' of 3" in note for note in split.notes) == bool(len(gap))
    assert any("3 examples were drawn as the test part" in note for note in split.notes)
    assert any("text in column 'colour' of 2 became 2 categories" in note for note in split.notes)
    assert any("what is no number in column 'size' of 2 is missing there" in note for note in split.notes)


def test_the_target_may_be_any_column_and_a_second_file_tests(file, tmp_path):
    test = tmp_path / "other.tsv"
    test.write_text("label\tsize\tcolour\tid\twhen\nyes\t2.5\tgreen\t1\t2020-01-03\n")  # in another order
    split = data.load("table", path=file, test=str(test), target="size", drop=["when"], task="regression")
    assert split.task == "regression"
    assert split.test.y.tolist() == [[2.5]]
    # id, colour (blue, red: green is none of them), label (no, yes)
    assert split.test.x.tolist() == [[1, 0, 0, 0, 1]]
    assert any("1 rows have no target and were left out" in note for note in split.notes)
    assert sum(len(part.y) for part in (split.train, split.val)) == 11


def test_levels_are_those_of_the_training_rows(pandas, tmp_path):
    rows = ["kind,y", *[f"a{n % 3},{n % 2}" for n in range(60)]]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    (tmp_path / "b.csv").write_text("kind,y\na7,0\na1,1\n")
    split = data.load("table", path=tmp_path / "a.csv", test=str(tmp_path / "b.csv"))
    assert split.test.x.tolist() == [[0, 0, 0], [0, 1, 0]]
    assert split.class_names == ()  # 0 and 1 are called 0 and 1


def test_parquet_and_text_are_the_same_data(file, pandas, tmp_path):
    pytest.importorskip("pyarrow")
    frame = pandas.read_csv(file)
    frame["when"] = pandas.to_datetime(frame["when"])
    frame["flag"] = frame["id"] > 6
    frame["label"] = frame.pop("label").astype("category")
    frame.to_parquet(tmp_path / "t.parquet")
    split = data.load("table", path=tmp_path / "t.parquet", test_fraction=0.25, drop=["colour"])
    text = data.load("table", path=file, test_fraction=0.25, drop=["colour", "when"])
    assert split.class_names == ("no", "yes")
    assert np.array_equal(split.train.y, text.train.y)
    assert np.array_equal(split.train.x[:, :2], text.train.x)
    assert set(split.train.x[:, 3]) == {0.0, 1.0}
    days = np.sort(every(split)[:, 2])  # seconds since 1970, less their training median
    assert np.array_equal(np.diff(days), np.full(11, 86400.0))


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ("a,b\n1,2\n3,4\n", {}, "a test part must be given or asked for.*data.options.test_fraction=0.2"),
        ("a,b\n", {"test_fraction": 0.5}, "must have rows below the names"),
        ("a,a,b\n1,2,x\n3,4,y\n", {"test_fraction": 0.5}, "names of their own, got 'a' twice"),
        ("1,2\n1,2\n3,4\n", {"test_fraction": 0.5}, "first row .* must name the columns, got the numbers 1, 2"),
        ("a,b\n1,2\n3,4\n", {"target": "c"}, r"target must be a column of .* \(a, b\), got 'c'"),
        ("a,b\n1,2\n3,4\n", {"drop": ["q"]}, "drop must name columns .* got 'q'"),
        ("a,b\n1,2\n3,4\n", {"drop": ["a"]}, "column of inputs besides 'b', got none"),
        ("a,b\n1,2,3\n3,4,5\n", {}, "as many values as there are column names, 2"),
        ("a,b\n1,2\n3,4,5\n", {}, "as many values as there are column names, 2"),
        (
            "a,b\n1,0.5\n3,0.25\n4,0.1\n",
            {"test_fraction": 0.4},
            "labels must be integers or text.*options.task=regress",
        ),
        (
            "a,b\n1,p\n3,q\n",
            {"task": "regression", "test_fraction": 0.5},
            "targets must be numbers with task=regression",
        ),
        ("a,b\n1,p\n3,q\n", {"task": "multilabel"}, "must be classification or regression"),
        ("", {}, "must be a table that pandas can read"),
    ],
)
def test_bad_tables_get_one_sentence(content, options, said, pandas, tmp_path):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(data.DataError, match=said) as error:
        data.load("table", path=tmp_path / "a.csv", **options)
    assert "\n" not in str(error.value)


def test_semicolons_and_decimal_commas_are_read(pandas, tmp_path):
    rows = [f"{n},5;{'ab'[n % 2]}" for n in range(20)]
    (tmp_path / "a.csv").write_text("\n".join(["size;kind", *rows]))
    split = data.load("table", path=tmp_path / "a.csv", test_fraction=0.2)
    assert sorted(every(split)[:, 0].tolist()) == [n + 0.5 for n in range(20)]
    (tmp_path / "a.csv").write_bytes("größe,y\n1,a\n".encode("latin-1"))
    with pytest.raises(data.DataError, match=r"must be a table that pandas can read, got: .*codec can't decode"):
        data.load("table", path=tmp_path / "a.csv", test_fraction=0.2)


def test_a_column_of_names_is_refused_by_name(pandas, tmp_path):
    (tmp_path / "a.csv").write_text("\n".join(["who,x,y", *[f"person {n},{n},{n % 2}" for n in range(200)]]))
    with pytest.raises(data.DataError, match=r"100 categories, got \d+ in 'who'.*data.options.drop=\[who\]"):
        data.load("table", path=tmp_path / "a.csv", test_fraction=0.2)
    assert data.load("table", path=tmp_path / "a.csv", test_fraction=0.2, drop=["who"]).train.x.shape[1] == 1


def test_other_files_are_no_tables(pandas, tmp_path):
    for name, said in (
        ("a.xls", r"must end in one of \.csv"),
        ("none.csv", "No such file"),
        ("b.parquet", "pandas can|pyarrow"),
    ):
        if not name.startswith("none"):
            (tmp_path / name).write_bytes(b"PAR1 not")
        with pytest.raises(data.DataError, match=said):
            data.load("table", path=tmp_path / name, test_fraction=0.2)


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(data.DataError, match=r"without them; pip install 'dsnn\[table\]'"):
        data.load("table", path=tmp_path / "a.csv")


def test_a_table_that_is_too_large_is_refused_before_it_is_read(file, monkeypatch):
    from dsnn.data import table

    monkeypatch.setattr(table, "MAX_CELLS", 10)
    with pytest.raises(data.DataError, match="may have 10 cells"):
        data.load("table", path=file, test_fraction=0.2)


# Mapped arrays


def arrays(folder, **changes):
    rng = np.random.default_rng(0)
    whole = {"x_train": rng.normal(size=(20, 3)), "y_train": np.arange(20) % 2, "x_test": rng.normal(size=(6, 3))}
    for name, values in (whole | {"y_test": np.arange(6) % 2} | changes).items():
        if values is not None:
            np.save(folder / f"{name}.npy", values, allow_pickle=True)
    return whole


def test_pairs_of_npy_files_are_the_same_data_as_an_npz(tmp_path):
    whole = arrays(tmp_path)
    np.savez(tmp_path / "a.npz", **whole, y_test=np.arange(6) % 2)
    ours, theirs = data.load("npy", path=tmp_path), data.load("npz", path=tmp_path / "a.npz")
    for part in ("train", "val", "test"):
        for mine, other in zip(getattr(ours, part), getattr(theirs, part), strict=True):
            np.testing.assert_array_equal(mine, other)


def test_single_precision_stays_mapped(tmp_path):
    arrays(tmp_path, x_test=np.ones((6, 3), np.float32))
    assert isinstance(data.load("npy", path=tmp_path).test.x, np.memmap)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"x_train": None}, "must hold x_train.npy and y_train.npy.*add x_train.npy"),
        ({"y_test": None}, "must hold x_test.npy and y_test.npy.*add y_test.npy"),
        ({"x_test": None, "y_test": None}, "data.options.test_fraction=0.2"),
        ({"x_train": np.array([None] * 20)}, "pickled objects in .*x_train.npy, which are refused"),
        ({"x_train": np.ones(20)}, r"x_train must be \[n, features\]"),
    ],
)
def test_bad_npy_folders_get_one_sentence(changes, said, tmp_path):
    arrays(tmp_path, **changes)
    with pytest.raises(data.DataError, match=said):
        data.load("npy", path=tmp_path)


def test_links_out_of_the_folder_are_not_followed(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    arrays(tmp_path)
    arrays(inner, x_train=None)
    (inner / "x_train.npy").symlink_to(tmp_path / "x_train.npy")
    with pytest.raises(data.DataError, match="a link to elsewhere"):
        data.load("npy", path=inner)
    with pytest.raises(data.DataError, match="must be a folder"):
        data.load("npy", path=tmp_path / "x_train.npy")
    (tmp_path / "x_train.npy").write_bytes(b"no")
    with pytest.raises(data.DataError, match=r"must be an \.npy file written .* another kind"):
        data.load("npy", path=tmp_path)


# Pictures


def pictures(folder, parts=("",), mode="RGB", size=(6, 4), per_class=5):
    image = pytest.importorskip("PIL.Image")
    for part in parts:
        for level, name in ((40, "dark"), (200, "light")):
            (folder / part / name).mkdir(parents=True)
            for n in range(per_class):
                suffix = "jpg" if n == 0 else "png"
                image.new(mode, size, level if mode == "L" else (level, level, 0)).save(
                    folder / part / name / f"{n}.{suffix}", quality=95
                )


def test_a_folder_of_pictures_by_class(tmp_path):
    pictures(tmp_path)
    split = data.load("images", path=tmp_path, test_fraction=0.2)
    assert split.class_names == ("dark", "light")
    assert split.train.x.shape[1:] == (4, 6, 3)
    assert not split.temporal
    for part in (split.train, split.val, split.test):
        np.testing.assert_allclose(part.x[..., 0].mean((1, 2)), np.array([40, 200])[part.y] / 255, atol=0.02)
        assert part.x[..., 2].max() < 0.05
    small = data.load("images", path=tmp_path, test_fraction=0.2, size=[2, 3], grey=True)
    assert small.train.x.shape[1:] == (2, 3, 1)


def test_pictures_of_named_parts_keep_them_and_grey_ones_stay_grey(tmp_path):
    pictures(tmp_path, ("train", "test"), "L")
    split = data.load("images", path=tmp_path)
    assert split.test.x.shape == (10, 4, 6, 1)
    with pytest.raises(data.DataError, match=r"for data without a test part, got 0\.2"):
        data.load("images", path=tmp_path, test_fraction=0.2)


def test_sixteen_bits_keep_their_range(tmp_path):
    image = pytest.importorskip("PIL.Image")
    pictures(tmp_path, mode="L")
    image.fromarray(np.full((4, 6), 65535, np.uint16)).save(tmp_path / "dark" / "9.png")
    image.fromarray(np.full((4, 6), 32768, np.uint16)).save(tmp_path / "dark" / "8.png")
    levels = np.sort(every(data.load("images", path=tmp_path, test_fraction=0.2)).max((1, 2, 3)))
    np.testing.assert_allclose(levels[[5, -1]], [32768 / 65535, 1], atol=1e-4)


def test_bad_pictures_get_one_sentence(tmp_path, monkeypatch):
    from dsnn.data import images

    image = pytest.importorskip("PIL.Image")
    pictures(tmp_path)
    with pytest.raises(data.DataError, match=r"data.options.test_fraction=0.2"):
        data.load("images", path=tmp_path)
    for size in ([0, 3], [3], [2**20, 2**20]):
        with pytest.raises(data.DataError, match=r"size must be \[height, width\]"):
            data.load("images", path=tmp_path, test_fraction=0.2, size=size)
    image.new("RGB", (9, 9)).save(tmp_path / "dark" / "odd.png")
    with pytest.raises(data.DataError, match=r"one size, got 2, from 4 x 6 to 9 x 9; set data.options.size"):
        data.load("images", path=tmp_path, test_fraction=0.2)
    (tmp_path / "dark" / "odd.png").write_bytes(b"\x89PNG\r\n\x1a\n no")
    with pytest.raises(data.DataError, match="must be a png or jpg picture"):
        data.load("images", path=tmp_path, test_fraction=0.2)
    (tmp_path / "dark" / "odd.png").unlink()
    monkeypatch.setattr(images, "MAX_PIXELS", 20)
    with pytest.raises(data.DataError, match="may have 20 pixels, got 6 x 4"):
        data.load("images", path=tmp_path, test_fraction=0.2)


def test_a_decompression_bomb_is_refused_from_its_header(tmp_path, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    pictures(tmp_path)
    for most in (20, 8):  # pillow warns above, and refuses above twice that
        monkeypatch.setattr(image, "MAX_IMAGE_PIXELS", most)
        with pytest.raises(data.DataError, match="a picture may have"):
            data.load("images", path=tmp_path, test_fraction=0.2)


def test_class_folders_that_are_links_out_are_passed_over(tmp_path):
    pictures(tmp_path / "set")
    pictures(tmp_path / "elsewhere")
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "elsewhere" / "dark")
    assert data.load("images", path=tmp_path / "set", test_fraction=0.2).class_names == ("dark", "light")


# All of them


def test_all_of_them_are_own_data():
    assert set(OWN) == {"audio", "events", "images", "npy", "npz", "shards", "table"} <= set(data.names())
    for name in OWN:
        assert "experiment=own" in schema.completed([f"data={name}", "data.path=x"])
        with pytest.raises(ValueError, match=r"give data\.path=PATH"):
            DataConfig(name=name)
        with pytest.raises(data.DataError, match="needs the option path"):
            data.load(name)
    with pytest.raises(ValueError, match=r"axis of time, got it with data=table"):
        DataConfig(name="table", path="a.csv", temporal=True)
