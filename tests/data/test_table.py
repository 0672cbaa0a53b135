"""Tables of numbers: what is read, and the sentence for what is not."""

import re

import numpy as np
import pytest

from tfp_flowvae.data.table import load_table
from tfp_flowvae.errors import UserError


def written(tmp_path, text, name="table.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path):
    with pytest.raises(UserError) as caught:
        load_table(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_csv_with_names(tmp_path):
    table = load_table(written(tmp_path, 'height, "weight"\n1.5,2\n-3e2,4\n'))
    assert table.names == ("height", "weight")
    np.testing.assert_array_equal(table.rows, [[1.5, 2.0], [-300.0, 4.0]])


def test_csv_without_names(tmp_path):
    table = load_table(written(tmp_path, "1,2\n3,4\n"))
    assert table.names == ("x0", "x1")
    np.testing.assert_array_equal(table.rows, [[1.0, 2.0], [3.0, 4.0]])


def test_csv_with_a_byte_order_mark(tmp_path):
    table = load_table(written(tmp_path, "\ufeffa,b\n1,2\n3,4\n"))
    assert table.names == ("a", "b")


def test_csv_of_one_column(tmp_path):
    assert load_table(written(tmp_path, "a\n1\n2\n3\n")).rows.shape == (3, 1)


@pytest.mark.parametrize("name", ["table.npy", "table.npz"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.bool_])
def test_arrays(tmp_path, name, dtype):
    rows = np.array([[0, 1, 0], [1, 0, 1]], dtype)
    save = np.save if name.endswith("y") else np.savez
    save(tmp_path / name, rows)
    table = load_table(tmp_path / name)
    assert table.names == ("x0", "x1", "x2")
    np.testing.assert_array_equal(table.rows, rows.astype(np.float64))


def test_a_vector_is_one_column(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(5.0))
    assert load_table(tmp_path / "x.npy").rows.shape == (5, 1)


def test_columns_by_name_and_by_number(tmp_path):
    table = load_table(written(tmp_path, "a,b,c\n1,2,3\n4,5,7\n"))
    chosen = table.select(["c", "0"])
    assert chosen.names == ("c", "a")
    np.testing.assert_array_equal(chosen.rows, [[3.0, 1.0], [7.0, 4.0]])
    assert table.without(["b"]).names == ("a", "c")


def test_unknown_column(tmp_path):
    table = load_table(written(tmp_path, "height,weight\n1,2\n3,4\n"))
    with pytest.raises(UserError, match=r"no column 'hight'.*Did you mean 'height'"):
        table.select(["hight"])
    with pytest.raises(UserError, match=r"no column '2'.*0 to 1"):
        table.select(["2"])
    with pytest.raises(UserError, match="named twice"):
        table.select(["height", "0"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b\n1,2\n3,red\n", "Column 'b' must hold numbers.*'red' in line 3"),
        ("a,b\n1,2\n3,\n", "Column 'b' must hold numbers.*no value in line 3"),
        ("a,b\n1,2\n3\n", "must have 2 values.*1 in line 3"),
        ("a,b\n1,2\n3,nan\n", "Column 'b' must hold finite numbers.*nan in row 1"),
        ("a,b\n1,2\n3,-inf\n", "Column 'b' must hold finite numbers.*-inf in row 1"),
        ("a,b\n1,2\n3,2\n", "Column 'b' is 2 in every row"),
        ("a,a\n1,2\n3,4\n", "two columns called 'a'"),
        ("a,b\n1,2\n", "two rows or more.*1"),
        ("", "is empty"),
        ("a\n1e40\n2e40\n", "Column 'a' cannot be told apart in float32"),
        ("a\n1700000000\n1700000001\n", "Column 'a' cannot be told apart in float32"),
    ],
)
def test_refused_csv(tmp_path, text, expected):
    assert re.search(expected, refusal(written(tmp_path, text)))


def test_refused_files(tmp_path):
    assert "no file" in refusal(tmp_path / "none.csv")
    assert ".csv, .npy or .npz" in refusal(written(tmp_path, "1,2", "table.txt"))
    np.savez(tmp_path / "two.npz", a=np.eye(2), b=np.eye(2))
    assert "one array" in refusal(tmp_path / "two.npz")
    np.save(tmp_path / "cube.npy", np.zeros([2, 2, 2]))
    assert "[N, D]" in refusal(tmp_path / "cube.npy")
    np.save(tmp_path / "text.npy", np.array([["a"], ["b"]]))
    assert "numbers" in refusal(tmp_path / "text.npy")
    np.save(tmp_path / "objects.npy", np.array([[1], [None]]), allow_pickle=True)
    assert "cannot be read" in refusal(tmp_path / "objects.npy")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 not an archive")
    assert "cannot be read" in refusal(tmp_path / "broken.npz")
