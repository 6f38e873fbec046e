"""A user's own table: what is read of it, and each way in which it cannot be used, in one line."""

import re

import numpy as np
import pandas as pd
import pytest
import torch

from bench.common.errors import UsageError
from bench.registry.fingerprints import data_digest, plugin_file
from bench.registry.own_data import entry, read, table
from bench.registry.registry import registry

ROWS = 60
VALUES = np.random.default_rng(0).normal(size=(ROWS, 2))


def lines(*more, rows=ROWS, header="a,b"):
    """A CSV file of two columns, with further lines at its end."""
    return "\n".join([header, *(f"{a!r},{b!r}" for a, b in VALUES[:rows].tolist()), *more]).encode()


def written(path, frame):
    """A frame in a file of the kind that its name says; an archive has no names."""
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        np.savez(path, frame.select_dtypes("number").to_numpy())
    return str(path)


def test_columns_are_taken_from_a_file_with_an_index(tmp_path):
    for names in (["a", "b"], [0, 1]):
        path = tmp_path / f"{names[1]}.csv"
        pd.DataFrame(VALUES, columns=names).to_csv(path)
        np.testing.assert_array_equal(read(str(path), (str(names[1]),)).values, VALUES[:, 1:])


@pytest.mark.parametrize("kind", ["csv", "parquet", "npz"])
def test_each_kind_of_file_gives_the_same_numbers(tmp_path, kind):
    frame = pd.DataFrame(VALUES, columns=["a", "b"]).assign(kind="setosa", when=pd.Timestamp("2020-01-01"), yes=True)
    found = read(written(tmp_path / f"my table.{kind}", frame))
    assert found.values.tolist() == VALUES.tolist()  # to the last digit
    assert found.names == (("1", "2") if kind == "npz" else ("a", "b"))
    assert found.left_out == (() if kind == "npz" else ("kind", "when", "yes"))
    made = registry([str(tmp_path / f"my table.{kind}")]).make_problem("my-table", None)
    assert torch.equal(made.data, torch.from_numpy(VALUES))
    assert (made.latent_dim, made.data_dim) == (2, 2)


def test_what_is_said_of_the_dataset(tmp_path):
    (tmp_path / "iris.csv").write_bytes(lines())
    found = entry(str(tmp_path / "iris.csv"))
    assert (found.name, found.summary, found.data_dim) == ("iris", "60 rows of iris.csv: a, b", 2)
    assert found.conditions == {"n_train": 36, "n_test": 12, "observation_noise": "learned"}


def test_columns_are_taken_by_name_in_the_order_given(tmp_path):
    (tmp_path / "t.csv").write_bytes(lines())
    assert read(str(tmp_path / "t.csv"), ("b", "a")).values.tolist() == VALUES[:, ::-1].tolist()
    one = registry([str(tmp_path / "t.csv")], ("b",)).make_problem("t", None)
    assert (one.latent_dim, one.data.tolist()) == (1, VALUES[:, 1:].tolist())


def test_a_first_row_with_a_number_is_no_header(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbf" + lines("", "").partition(b"\n")[2])  # a mark of UTF-8 is none
    found = read(str(tmp_path / "t.csv"))
    assert (found.names, len(found.values)) == (("1", "2"), ROWS)


def test_columns_that_pandas_numbered_are_a_header(tmp_path):
    values = VALUES + 0.25
    pd.DataFrame(values).to_csv(tmp_path / "t.csv", index=False)
    found = read(str(tmp_path / "t.csv"))
    assert (found.names, found.values.tolist()) == (("0", "1"), values.tolist())
    assert found.remarks == ["columns whose names count from 0"]
    pd.DataFrame(values).rename(columns=str).to_parquet(tmp_path / "t.parquet")
    assert read(str(tmp_path / "t.parquet")).remarks == found.remarks  # where no first row is a header


def test_a_point_of_whole_numbers_is_no_header(tmp_path):
    """Else one of four first rows of two binary columns would be lost."""
    (tmp_path / "t.csv").write_bytes(b"0,1\n1,1\n1,0\n" * 30)
    assert read(str(tmp_path / "t.csv")).values[0].tolist() == [0, 1]


def test_a_column_of_lists_is_left_out(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"tags,a\n" + b'"0,1",2\nnew,3\n' * 30)
    assert read(str(tmp_path / "t.csv")).left_out == ("tags",)


def test_many_columns_are_not_all_named(tmp_path):
    np.savez(tmp_path / "t.npz", np.random.default_rng(0).normal(size=(60, 784)))
    assert entry(str(tmp_path / "t.npz")).summary == (
        "60 rows of t.npz: 784 columns, 1, 2, 3, 4, 5, 6, ..., 784 (columns without names)"
    )


REMARKS = {
    "plain": (VALUES, []),
    "binary": (
        np.arange(60)[:, None] % 2 * np.ones(2),
        ["every value is 0 or 1, as --likelihood bernoulli takes it", "58 rows equal to an earlier one"],
    ),
    "counts": (
        np.arange(60)[:, None] * np.ones(2),
        ["every value is a whole number from 0 on, as --likelihood poisson takes it"],
    ),
    "repeated": (np.vstack([VALUES, VALUES[:3]]), ["3 rows equal to an earlier one"]),
    "negative": (-1 - np.arange(60)[:, None] * np.ones(2), []),
}


@pytest.mark.parametrize("name", REMARKS)
def test_what_may_not_be_meant_is_said(tmp_path, name):
    values, told = REMARKS[name]
    pd.DataFrame(values, columns=["a", "b"]).to_csv(tmp_path / "t.csv", index=False)
    found = read(str(tmp_path / "t.csv")).remarks
    assert len(found) == len(told)
    assert all(part in remark for part, remark in zip(told, found, strict=True))


def test_what_was_read_is_said_at_the_terminal(tmp_path, cli):
    (tmp_path / "t.csv").write_bytes(lines())
    end = cli("compare", "-m", "untrained", "--data", tmp_path / "t.csv", "--out", tmp_path / "out", "--seeds", 1)
    assert (end.code, f"t: {ROWS} rows of t.csv: a, b\n" in end.out + end.err) == (0, True)


def test_noise_that_no_data_of_ones_own_has_is_refused(tmp_path, cli):
    (tmp_path / "t.csv").write_bytes(lines())
    end = cli("compare", "-m", "vae", "--data", tmp_path / "t.csv", "--observation-noise", "known")
    assert end.code == 2
    assert "has no true noise variance" in end.err


def test_lines_without_anything_are_no_rows(tmp_path):
    (tmp_path / "t.csv").write_bytes(lines().replace(b"\n", b"\n \n\n"))
    assert read(str(tmp_path / "t.csv")).values.tolist() == VALUES.tolist()


def test_a_column_whose_name_has_a_comma_is_asked_for_in_quotes(tmp_path, cli):
    (tmp_path / "t.csv").write_bytes(lines(header='"a,b",c'))
    end = cli("plan", "-m", "vae", "--data", tmp_path / "t.csv", "--columns", '"a,b"')
    assert (end.code, end.err) == (0, "")
    assert read(str(tmp_path / "t.csv"), ("a,b",)).names == ("a,b",)


@pytest.mark.parametrize(("index", "names"), [("b", {"a", "b"}), (None, {"a"})])
def test_an_index_of_pandas_with_a_name_is_a_column(tmp_path, index, names):
    frame = pd.DataFrame(VALUES, columns=["a", "b"]).set_index("b").rename_axis(index)
    frame.to_parquet(tmp_path / "t.parquet")
    assert {*read(str(tmp_path / "t.parquet")).names} == names


SAVED = {
    "several.npz": {"one": VALUES, "two": VALUES},
    "none.npz": {},
    "text.npz": {"one": np.array(["a", "b"])},
    "pickled.npz": {"one": np.array([{}, {}], dtype=object)},
    "deep.npz": {"one": np.zeros((60, 2, 2))},
    "empty.npz": {"one": np.zeros((60, 0))},
    "infinite.npz": {"one": np.where(np.arange(120).reshape(60, 2) == 7, np.inf, VALUES)},
}
BAD = {
    "word.csv": (lines("1,two"), "row 61, column 'b': 'two' is not a number"),
    "missing.csv": (lines("1,"), "row 61, column 'b': the value is missing"),
    "na.csv": (lines("NA,1"), "row 61, column 'a': the value is missing"),
    "gap.csv": (b"a\n" + b"1\n2\n" * 30 + b'""\n', "row 61, column 'a': the value is missing"),
    "infinite.csv": (lines("1,-inf"), "row 61, column 'b': '-inf' is infinite"),
    "large.csv": (lines("1,1e16"), "row 61, column 'b': '1e16' exceeds 1e+15"),
    "semicolons.csv": (b"a;b\n" + b"1,5;2,5\n" * 60, "its cells are separated by ';'; commas are expected"),
    "tabs.csv": (b"1\t2\n" * 60, "its cells are separated by '\\t'; commas are expected"),
    "first.csv": (b",NaN\n" + b"1,2\n" * 60, "row 1, column '1': the value is missing"),
    "short.csv": (lines("1"), "row 61 has 1 cell, but the first line has 2"),
    "constant.csv": (lines(rows=0) + b"\n1,2" * 60, "column 'a' is constant"),
    "nothing.csv": (b"", "it has no rows"),
    "header.csv": (lines(rows=0), "it has no rows"),
    "few.csv": (lines(rows=49), "it has 49 rows; at least 50 are needed"),
    "words.csv": (b"a\n" + b"x\n" * 60, "no column holds numbers, or all are missing (columns: a)"),
    "comma.csv": (
        b"a;b,c\n" + b'"1,5",2\n"2,5",3\n' * 30,
        "row 1, column 'a;b': '1,5' is not a number; write decimals",
    ),
    "percent.csv": (b"a,b\n" + b"5 %,2\n7.5 %,3\n" * 30, "row 1, column 'a': '5 %' is not a number; write decimals"),
    "index.csv": (
        b",a\n" + b"".join(b"%d,%d.5\n" % (n, n) for n in range(60)),
        "its first column has no name, as an index that pandas or R writes; write the file without it (index=False, "
        "row.names=FALSE), or name the columns to take with --columns",
    ),
    "numbered.csv": (
        b",0,1\n" + b"".join(b"%d,%d.5,1\n" % (n, n) for n in range(60)),
        "its first column has no name, as an index",
    ),
    "shuffled.csv": (
        b'"","a"\n' + b"".join(b'"%d",%d.5\n' % (n, n) for n in range(60, 0, -1)),
        "its first column has no name, as an index",
    ),
    "thousands.csv": (b"a,b\n" + b'"1,000,000",2\n,3\n' * 30, "row 1, column 'a': '1,000,000' is not a number"),
    "exponent.csv": (b"a,b\n" + b',2\n"0,5e3",3\n' * 30, "row 2, column 'a': '0,5e3' is not a number"),
    "only.csv": (b"a\n" + b"5%\n7%\n" * 30, "row 1, column 'a': '5%' is not a number"),
    "twice.csv": (lines(header="a,a"), "two columns are called 'a'"),
    "latin.csv": (b"\xff\xfe\xe9", "cannot be read: UnicodeDecodeError"),
    "quote.csv": (b'a,b\n"1,2\n', "cannot be read: Error"),
    "none.parquet": (b"PAR1", "cannot be read: ArrowInvalid"),
    "none.txt": (b"1,2", None),
    "gone.csv": (None, "is not a file"),
    "curves.csv": (lines(), "would be the dataset 'curves', which stands for a group; rename the file"),
    "garbage.npz": (b"garbage", "it is something else, not an .npz archive"),
    "single.npz": (b"\x93NUMPY\x01", "it is a single array, not an .npz archive"),
    "several.npz": (..., "it must hold one array, got one, two"),
    "none.npz": (..., "it must hold one array, got none"),
    "text.npz": (..., "it must be an array of real numbers, (n, D), got <U1 (2,)"),
    "pickled.npz": (..., "Object arrays cannot be loaded when allow_pickle=False"),
    "deep.npz": (..., "it must be an array of real numbers, (n, D), got float64 (60, 2, 2)"),
    "empty.npz": (..., "it has no rows"),
    "infinite.npz": (..., "row 4, column '2': inf is infinite"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line_and_exit_code_2(cli, tmp_path, name):
    content, message = BAD[name]
    if content is ...:
        np.savez(tmp_path / name, **SAVED[name])
    elif content is not None:
        (tmp_path / name).write_bytes(content)
    end = cli("compare", "-m", "vae", "--data", tmp_path / name, "--out", tmp_path / "out")
    assert end.code == 2
    assert end.err.startswith(f"error: data {tmp_path / name}")
    assert (message or "must end in .csv, .parquet, .npz") in end.err
    assert end.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--columns", ""), "--columns must be a list of names, got ''"),
        (("--columns", "a,b,a"), "column 'a' is asked for twice"),
        (("--columns", "a,bb"), "unknown column 'bb' - did you mean 'b'? (available: a, b)"),
        (("--n-train", "55"), "55 training points leave 3 for the test set, which needs at least 10"),
        (("-d", "t[n_train=55]"), "55 training points leave 3"),
        (("--data", "README.md"), "must end in .csv, .parquet, .npz"),
        (("-d", "tt"), "unknown dataset 'tt' - did you mean 't'?"),
        (("--likelihood", "poisson"), "dataset 't': data cannot be poisson: row "),
        (("-d", "t[likelihood=binomial]"), "the likelihood must be gaussian, bernoulli, poisson, got 'binomial'"),
    ],
)
def test_what_the_file_does_not_have_is_refused(cli, tmp_path, more, message):
    (tmp_path / "t.csv").write_bytes(lines())
    end = cli("compare", "-m", "vae", "--data", tmp_path / "t.csv", "--out", tmp_path / "out", *more)
    assert (end.code, message in end.err, end.err.count("\n")) == (2, True, 1), end.err


def test_names_that_are_taken_and_columns_without_data_are_refused(cli, tmp_path):
    (tmp_path / "circle.csv").write_bytes(lines())
    assert "'circle', which is taken (built in)" in cli("plan", "-m", "vae", "--data", tmp_path / "circle.csv").err
    assert "--columns names columns of --data" in cli("plan", "-m", "vae", "--columns", "a").err
    assert "--likelihood says what --data are" in cli("plan", "-m", "vae", "--likelihood", "poisson").err


def test_a_named_column_must_hold_numbers():
    with pytest.raises(UsageError, match=re.escape("row 1, column 'kind': 'setosa' is not a number")):
        table({"kind": ["setosa"] * 60, "a": VALUES[:, 0]}, ("kind",))
    with pytest.raises(UsageError, match="row 1, column 'yes': True is not a number"):
        table({"yes": [True] * 60}, ("yes",))


def test_the_digest_is_of_the_numbers_not_of_their_spelling(tmp_path):
    (tmp_path / "t.csv").write_bytes(lines())
    (tmp_path / "other.csv").write_bytes(lines().replace(b",", b" , ") + b"\r\n\r\n")
    (tmp_path / "edited.csv").write_bytes(lines().replace(b"\n-", b"\n", 1))
    first, other, edited = (
        data_digest(registry([str(tmp_path / f"{name}.csv")]).make_problem(name, None))
        for name in ("t", "other", "edited")
    )
    assert first == other != edited


def test_a_file_is_sent_to_another_machine_as_it_is(tmp_path):
    (tmp_path / "t.csv").write_bytes(lines())
    assert plugin_file(str(tmp_path / "t.csv")).files == (("t.csv", lines()),)
