from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfp_flowvae.errors import UserError
from tfp_flowvae.flows import FLOWS
from tfp_flowvae.flows.spec import format_stack, parse_stack
from tfp_flowvae.spec import Spec

SIZES = FLOWS["iaf"].options["hidden"].expected
PLANAR_ACTIVATION = FLOWS["planar"].options["activation"].expected


@pytest.mark.parametrize(
    ("spec", "flows"),
    [
        ("none", ()),
        ("iaf", (Spec("iaf"),)),
        ("iaf:3", (Spec("iaf", {"length": 3}),)),
        ("iaf:length=3", (Spec("iaf", {"length": 3}),)),
        ("iaf:03", (Spec("iaf", {"length": 3}),)),
        ("iaf:hidden=32", (Spec("iaf", {"hidden": (32,)}),)),
        ("iaf:1,hidden=320x32", (Spec("iaf", {"length": 1, "hidden": (320, 32)}),)),
        ("iaf:hidden=8x8x8,length=5", (Spec("iaf", {"hidden": (8, 8, 8), "length": 5}),)),
        ("planar:activation=tanh", (Spec("planar", {"activation": "tanh"}),)),
        (
            "maf:2,hidden=4,activation=silu",
            (Spec("maf", {"length": 2, "hidden": (4,), "activation": "silu"}),),
        ),
        ("householder:4+iaf:1", (Spec("householder", {"length": 4}), Spec("iaf", {"length": 1}))),
        ("spline-iaf:3", (Spec("spline-iaf", {"length": 3}),)),
        (
            "spline-maf:bins=16,bound=3.5+lu",
            (Spec("spline-maf", {"bins": 16, "bound": 3.5}), Spec("lu")),
        ),
        ("spline-iaf:bound=4", (Spec("spline-iaf", {"bound": 4.0}),)),
        ("permute:order=random,seed=0", (Spec("permute", {"order": "random", "seed": 0}),)),
        ("residual:lipschitz=1e-2", (Spec("residual", {"lipschitz": 0.01}),)),
        ("iaf:1+iaf:7", (Spec("iaf", {"length": 1}), Spec("iaf", {"length": 7}))),
    ],
)  # fmt: skip
def test_reads_every_form(spec, flows):
    assert parse_stack(spec) == flows
    assert parse_stack(format_stack(parse_stack(spec))) == flows


@pytest.mark.parametrize(
    ("spec", "canonical"),
    [
        ("none", "none"),
        ("iaf:2", "iaf:2"),
        ("iaf:length=9", "iaf:9"),
        ("iaf:hidden=8x8,length=9", "iaf:9,hidden=8x8"),
        ("planar:1+iaf:activation=elu", "planar:1+iaf:activation=elu"),
        ("spline:bound=4.0,bins=08", "spline:bound=4,bins=8"),
        ("spline:bound=0.00001", "spline:bound=1e-05"),
    ],
)
def test_formats_canonically(spec, canonical):
    assert format_stack(parse_stack(spec)) == canonical


_VALUES = {
    "length": st.integers(1, 999),
    "hidden": st.lists(st.integers(1, 999), min_size=1, max_size=3).map(tuple),
    "width": st.integers(1, 999),
    "reflections": st.integers(1, 999),
    "bins": st.integers(2, 256),
    "bound": st.floats(0.0, 1000.0, exclude_min=True, exclude_max=True),
    "lipschitz": st.floats(0.0, 1.0, exclude_min=True, exclude_max=True),
    "seed": st.integers(0, 2**31 - 1),
}


@st.composite
def _flows(draw):
    name = draw(st.sampled_from([name for name in FLOWS if name != "none"]))
    options = {}
    for key, option in FLOWS[name].options.items():
        if key in _VALUES:
            value = draw(_VALUES[key])
        else:  # "one of a, b, c"
            value = draw(st.sampled_from(option.expected.removeprefix("one of ").split(", ")))
        if draw(st.booleans()):
            options[key] = value
    return Spec(name, options, FLOWS[name])


@given(st.lists(_flows(), max_size=4).map(tuple))
def test_round_trip_of_any_stack(flows):
    assert parse_stack(format_stack(flows)) == flows


@given(st.text(alphabet="iafplnroe:+,=x0123 -", max_size=20))
def test_any_string_is_read_or_refused_in_one_sentence(text):
    message = ""
    try:
        flows = parse_stack(text)
    except UserError as error:
        message = str(error)
    if message:
        assert repr(text) in message
        assert "\n" not in message
    else:
        assert parse_stack(format_stack(flows)) == flows


# For each: the spec, with >>> before the character that the message must point at.
@pytest.mark.parametrize(
    ("marked", "complaint"),
    [
        (">>>+iaf", "expected the name of a flow, not ''"),
        ("iaf+>>>", "expected the name of a flow, not ''"),
        ("iaf:2+>>>+maf", "expected the name of a flow, not ''"),
        (">>> iaf", "expected the name of a flow, not ' iaf'"),
        ("maf:2+>>>3", "expected the name of a flow, not '3'"),
        (">>>iaf(2)", "expected the name of a flow, not 'iaf(2)'"),
        (">>>:2", "expected the name of a flow, not ''"),
        (">>>none+iaf", "'none' stands alone: leave it out of a stack"),
        ("iaf:2+>>>none", "'none' stands alone: leave it out of a stack"),
        ("none>>>:2", "none takes no options"),
        ("none>>>:length=2", "none takes no options"),
        ("iaf:>>>", "the length K must be a whole number of at least 1, not ''"),
        ("iaf:>>>0", "the length K must be a whole number of at least 1, not '0'"),
        ("iaf:>>>-1", "the length K must be a whole number of at least 1, not '-1'"),
        ("iaf:>>>2.5", "the length K must be a whole number of at least 1, not '2.5'"),
        ("iaf:>>> 2", "the length K must be a whole number of at least 1, not ' 2'"),
        ("iaf:>>>\u0663", "the length K must be a whole number of at least 1, not '\u0663'"),
        ("iaf:>>>two", "the length K must be a whole number of at least 1, not 'two'"),
        ("iaf:>>>2:3", "the length K must be a whole number of at least 1, not '2:3'"),
        ("iaf:length=>>>0", "the length K must be a whole number of at least 1, not '0'"),
        ("planar+iaf:length=>>>", "the length K must be a whole number of at least 1, not ''"),
        ("iaf:2,>>>3", "expected key=value, not '3'"),
        ("iaf:2,>>>", "expected key=value, not ''"),
        ("iaf:2,>>>length=3", "the option 'length' is given twice"),
        ("iaf:length=2,>>>length=3", "the option 'length' is given twice"),
        ("iaf:hidden=8,>>>hidden=8", "the option 'hidden' is given twice"),
        ("iaf:hidden=>>>", f"hidden must be {SIZES}, not ''"),
        ("iaf:hidden=>>>8x", f"hidden must be {SIZES}, not '8x'"),
        ("iaf:hidden=>>>8x0", f"hidden must be {SIZES}, not '8x0'"),
        ("iaf:1,hidden=>>>8*8", f"hidden must be {SIZES}, not '8*8'"),
        ("planar:activation=>>>relu", f"activation must be {PLANAR_ACTIVATION}, not 'relu'"),
        (
            "iaf:>>>hiden=8",
            "iaf has no option 'hiden'; its options are length, hidden, activation, update. Did",
        ),
        ("radial:3,>>>hidden=8", "radial has no option 'hidden'; its options are length"),
        ("iaf:>>>=8", "iaf has no option ''; its options are length, hidden, activation, update"),
        ("iaf:update=>>>gates", "update must be one of affine, gated, not 'gates'"),
        ("spline:bound=>>>0", "bound must be a number between 0 and 1000, not '0'"),
        ("spline:bound=>>>nan", "bound must be a number between 0 and 1000, not 'nan'"),
        ("spline:bound=>>>1e9", "bound must be a number between 0 and 1000, not '1e9'"),
        ("spline-iaf:bound=>>>-4", "bound must be a number between 0 and 1000, not '-4'"),
        ("spline-iaf:bound=>>>4_0", "bound must be a number between 0 and 1000, not '4_0'"),
        ("spline:bins=>>>1", "bins must be a whole number from 2 to 256, not '1'"),
        ("spline:bins=>>>257", "bins must be a whole number from 2 to 256, not '257'"),
        ("residual:lipschitz=>>>1", "lipschitz must be a number between 0 and 1, not '1'"),
        ("permute:seed=>>>-1", "seed must be a whole number, not '-1'"),
        ("permute:>>>3", "expected key=value, not '3'"),
        ("lu>>>:2", "lu takes no options"),
    ],
)
def test_refusals_point_at_the_place(marked, complaint):
    position = marked.index(">>>")
    spec = marked.replace(">>>", "")
    with pytest.raises(UserError) as caught:
        parse_stack(spec)
    message = str(caught.value)
    assert f"{spec!r} at character {position + 1} ({marked}): {complaint}" in message
    assert message[-1] in ".?"
    assert message[-2:] != ".."


@pytest.mark.parametrize(
    ("name", "hint"), [("iaff", "'iaf'"), ("IAF", "'iaf'"), ("real-nvp", "'realnvp'")]
)
def test_an_unknown_flow_is_named_with_the_nearest_and_all_known(name, hint):
    spec = f"planar+{name}:2"
    with pytest.raises(UserError) as caught:
        parse_stack(spec)
    message = str(caught.value)
    assert message.startswith(f"Unknown flow {name!r} in {spec!r}; ")
    assert ", ".join(FLOWS) in message
    assert f"Did you mean {hint}" in message


def test_an_unknown_flow_without_a_near_name_gets_no_hint():
    with pytest.raises(UserError, match="Unknown flow 'zzz'") as caught:
        parse_stack("zzz")
    assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize("spec", ["", "  "])
def test_an_empty_spec_is_told_of_none(spec):
    with pytest.raises(UserError, match=f"say 'none' for no flow. Received: {spec!r}"):
        parse_stack(spec)
