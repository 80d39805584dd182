"""The address of a page: what it says comes back as it was, and nonsense in it is said to be so."""

import pytest

from weighbridge.app.page import MAP_COLUMNS
from weighbridge.app.state import State

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

RANGES = st.none() | st.tuples(st.integers(0, 10**6), st.integers(1, 10**6)).map(
    lambda at: (float(at[0]), float(at[0] + at[1]))
)
STATES = st.builds(
    State,
    tensor=st.text(max_size=40),
    result=st.text(max_size=40),
    tab=st.sampled_from(["heatmap", "distribution", "channels", "similarity", "circuit", "figures"]),
    reduction=st.sampled_from(["absmax", "mean", "rms", "min", "max", "zeros"]),
    rows=RANGES,
    cols=RANGES,
    widen=st.sampled_from([1.0, 2.0, 30.0]),
    column=st.sampled_from(MAP_COLUMNS),
    theme=st.sampled_from(["light", "dark"]),
    side=st.sampled_from(["rows", "cols"]),
    kind=st.sampled_from(["cosine", "pearson"]),
    order=st.sampled_from(["stored", "seriated"]),
    joined=st.sampled_from(["mean", "min", "max"]),
    unit=st.text(max_size=20),
)


@hypothesis.given(STATES)
def test_an_address_says_all_of_a_state(state):
    from urllib.parse import urlencode

    query = urlencode({key: text for key, text in state.query().items() if text is not None}, errors="surrogatepass")
    assert State.parse("?" + query, MAP_COLUMNS) == (state, [])


def test_the_default_says_nothing():
    assert set(State().query().values()) == {None}


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("tab=../../etc", "expected one of heatmap, distribution"),
        ("rows=5:1", "the first the smaller"),
        ("rows=a:b", "expected low:high"),
        ("cols=nan:nan", "the first the smaller"),
        ("cols=0:1e300", "the first the smaller"),
        ("widen=-1", "expected 1 to"),
        ("widen=nan", "expected 1 to"),
        ("widen=x", "expected a number"),
        ("theme=<script>", "expected one of light, dark"),
        ("column=name", "expected one of std"),
        ("reduction=sum", "expected one of absmax"),
    ],
)
def test_nonsense_is_one_line_and_left_out(query, said):
    state, complaints = State.parse("?" + query, MAP_COLUMNS)
    assert state == State()
    (complaint,) = complaints
    assert said in complaint
    assert "\n" not in complaint


def test_what_is_unknown_and_what_is_far_too_much_is_passed_over():
    assert State.parse("?utm_source=x&tensor=a", MAP_COLUMNS) == (State(tensor="a"), [])
    assert State.parse("?" + "&".join("tab=channels" for _ in range(1000)), MAP_COLUMNS) == (State(), [])
