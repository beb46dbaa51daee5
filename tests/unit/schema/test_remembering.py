"""Results that are kept for the time of one load, and no longer."""

from mlops_assets.schema.remembering import remembered, remembering


def test_a_result_is_kept_inside_the_block_alone() -> None:
    calls: list[str] = []

    @remembered
    def look_up(name: str) -> str:
        calls.append(name)
        return name.upper()

    for _ in range(2):
        assert look_up("a") == "A"
    assert calls == ["a", "a"]
    for _ in range(2):
        calls.clear()
        with remembering():
            assert [look_up("a"), look_up("b"), look_up("a")] == ["A", "B", "A"]
        assert calls == ["a", "b"]
