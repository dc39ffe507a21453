import pytest

from cello1.addresses import cleaned, without_secrets


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("http://host/v1", "http://host/v1"),
        ("https://me:secret@host:8/v1", "https://host:8/v1"),
        ("http://me:se/cr@et@host/v1?key=secret#x", "http://host/v1"),
        ("socks5://me:secret@proxy:1080", "socks5://proxy:1080"),
        ("'http://me:secret@a/v1' was http://b?k=secret now", "'http://a/v1' was http://b now"),
        ("http://[::1]:8000/v1?token=secret", "http://[::1]:8000/v1"),
        ("me@example.org, 2 of 3?", "me@example.org, 2 of 3?"),
    ],
)
def test_user_password_and_query_go_and_all_else_stays(text, clean):
    assert without_secrets(text) == clean


def test_values_are_cleaned_at_every_depth():
    found = cleaned({"a": [{"url": "http://u:secret@h/"}], "n": 1, "t": ("x", None)})
    assert found == {"a": [{"url": "http://h/"}], "n": 1, "t": ["x", None]}
