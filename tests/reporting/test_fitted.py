"""Tables adapt to the available width."""

from histoedge.reporting.fitted import FOLDERS, Column, fit, fold

MODELS = Column("model", ("edge/models/int8.onnx", "fp32.onnx"), fold_after=FOLDERS, left=True)
SIZE = Column("kB", ("113", "410"), spare=1)
RATE = Column("patch/s", ("10,000", "9,000"), spare=2)
RATIO = Column("p50 / fp32", ("0.34 [0.33 0.35]", ""), ("0.34", ""), "ratio")
AUC = Column("AUC 95 %", (".944 [.933 .955]",) * 2, (".944",) * 2, "AUC")
ALL = (MODELS, SIZE, RATE, RATIO, AUC)
WHOLE = 21 + 1 + 3 + 1 + 7 + 1 + 16 + 1 + 16


def names(width: int) -> list[str]:
    return [column.name for column in fit(ALL, width)[0]]


def test_spare_columns_are_omitted_first_in_their_order_and_listed() -> None:
    assert fit(ALL, WHOLE)[1] == []
    assert fit(ALL, WHOLE - 1)[1] == ["kB"]
    assert fit(ALL, WHOLE - 1 - 4)[1] == ["kB", "patch/s"]
    assert names(WHOLE - 1 - 4) == ["model", "p50 / fp32", "AUC 95 %"]


def test_then_names_are_folded_at_folders_and_then_intervals_are_omitted() -> None:
    folded, _ = fit(ALL, 46)
    assert folded[0].cells == ("edge/models/\nint8.onnx", "fp32.onnx")
    assert names(46) == ["model", "p50 / fp32", "AUC 95 %"]
    assert names(34) == ["model", "ratio", "AUC 95 %"]
    assert names(22) == ["model", "ratio", "AUC"]
    assert fit(ALL, 22)[0][0].cells[0] == "edge/\nmodels/\nint8.onnx"
    assert names(5) == ["model", "ratio", "AUC"]


def test_a_name_is_folded_into_few_lines_and_its_parts_stay_whole() -> None:
    assert fold("exported/edge/models/int8.onnx", FOLDERS, 21) == "exported/edge/models/\nint8.onnx"
    assert fold("exported/edge/models/int8.onnx", FOLDERS, 9) == "exported/\nedge/\nmodels/\nint8.onnx"
    assert fold("exported/edge", FOLDERS, 3) == "exported/\nedge"
    assert fold("brightness minus 15 percent", FOLDERS, 16) == "brightness minus\n15 percent"
    assert fold("", FOLDERS, 3) == ""
