"""The sizes that arrays are padded to: few, never smaller, and at most an eighth larger."""

from weighbridge_kernels.padding import padded_size, unpadded_size


def test_few_and_close() -> None:
    sizes = {padded_size(n) for n in range(1, 1 << 16)}
    assert len(sizes) <= 8 * 14
    for n in range(1 << 12):
        assert n <= padded_size(n) <= n * 9 / 8
        assert unpadded_size(n) <= n < padded_size(n + 1)
        assert padded_size(unpadded_size(n)) == unpadded_size(n)
        assert unpadded_size(padded_size(n)) == padded_size(n)
