"""The configuration: one file, overridden by the environment, no key unknown."""

import traceback
from pathlib import Path

import msgspec
import pytest

import piker_core as pk
from piker_core.config import (
    AccountConfig,
    FeedConfig,
    Secret,
    config_path,
    load_named,
    load_section,
)
from piker_core.errors import ConfigError


class Venue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ws_url: str = "ws://default"
    patience_s: float = 5.0
    tries: int = 3
    api_secret: Secret = Secret()


@pytest.fixture
def write(tmp_path: Path) -> "Writer":
    return Writer(tmp_path / "config.toml")


class Writer:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, text: str, mode: int = 0o600) -> dict[str, str]:
        self.path.write_text(text)
        self.path.chmod(mode)
        return {"PIKER_CONFIG": str(self.path)}


def test_without_a_file_everything_is_default(tmp_path: Path) -> None:
    environ = {"PIKER_CONFIG": str(tmp_path / "none.toml")}
    assert load_section("kraken", Venue, environ=environ).ws_url == "ws://default"


def test_the_file_is_where_the_platform_keeps_configuration(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert config_path(environ) == tmp_path / "piker-core" / "config.toml"


def test_the_environment_overrides_the_file(write: Writer) -> None:
    environ = write('[kraken]\nws_url = "ws://file"\ntries = 4\n')
    environ |= {"PIKER_KRAKEN__WS_URL": "ws://env", "PIKER_KRAKEN__PATIENCE_S": "1.5"}
    venue = load_section("kraken", Venue, environ=environ)
    assert (venue.ws_url, venue.tries, venue.patience_s) == ("ws://env", 4, 1.5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[kraken]\nws_urll = 'x'\n", ["ws_urll", "config.toml", "ws_url, patience_s"]),
        ("[krakenn]\nws_url = 'x'\n", ["[krakenn]", "config.toml", "kraken"]),
        ("[kraken]\npatience_s = 'long'\n", ["config.toml", "patience_s"]),
        ("kraken = 5\n", ["kraken", "table"]),
        ("[kraken\n", ["config.toml", "TOML"]),
        ("[json]\nindent = 2\n", ["[json]"]),
    ],
)
def test_a_mistake_is_one_sentence_that_names_it(
    write: Writer, text: str, words: list[str]
) -> None:
    with pytest.raises(pk.ConfigError) as caught:
        load_section("kraken", Venue, environ=write(text))
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [("PIKER_KRAKEN__WS_URLL", "x"), ("PIKER_KRAKEN__TRIES", "many")],
)
def test_a_mistake_in_the_environment_is_named_too(
    write: Writer, name: str, text: str
) -> None:
    with pytest.raises(pk.ConfigError) as caught:
        load_section("kraken", Venue, environ=write("") | {name: text})
    assert "PIKER_KRAKEN__" in str(caught.value)


def test_a_key_that_is_nearly_right_is_said_to_be_meant(write: Writer) -> None:
    where = write("[kraken]\nws_urll = 'ws://x'\n")
    with pytest.raises(pk.ConfigError, match=r"ws_urll; did you mean ws_url\?"):
        load_section("kraken", Venue, environ=where)
    where = write("") | {"PIKER_KRAKEN__TRYES": "3"}
    with pytest.raises(pk.ConfigError, match=r"did you mean PIKER_KRAKEN__TRIES\?"):
        load_section("kraken", Venue, environ=where)


def test_an_unreadable_file_is_an_error_not_a_default(tmp_path: Path) -> None:
    with pytest.raises(pk.ConfigError, match="cannot be read"):
        load_section("kraken", Venue, environ={"PIKER_CONFIG": str(tmp_path)})


def test_a_secret_shows_itself_to_nobody(write: Writer) -> None:
    environ = write('[kraken]\napi_secret = "hunter2"\n')
    venue = load_section("kraken", Venue, environ=environ)
    assert venue.api_secret.reveal() == "hunter2"
    assert "hunter2" not in repr(venue) + str(venue.api_secret) + f"{venue.api_secret}"
    with pytest.raises(pk.ConfigError) as caught:
        load_section("kraken", Venue, environ=environ | {"PIKER_KRAKEN__TRIES": "x"})
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_file_with_a_secret_must_be_private(write: Writer) -> None:
    environ = write('[kraken]\napi_secret = "hunter2"\n', mode=0o644)
    with pytest.raises(pk.ConfigError, match="chmod 600"):
        load_section("kraken", Venue, environ=environ)


def test_a_table_of_another_installed_provider_is_no_mistake(write: Writer) -> None:
    environ = write("[kraken]\nanything = 1\n[feed]\nseconds_back = 5\n")
    assert load_section("feed", FeedConfig, environ=environ).seconds_back == 5


def test_a_secret_may_be_in_a_file_of_its_own(write: Writer, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("hunter2\n")
    file.chmod(0o600)
    environ = write(f'[kraken]\napi_secret = "file:{file}"\n')
    venue = load_section("kraken", Venue, environ=environ)
    assert venue.api_secret.reveal() == "hunter2"
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_section("kraken", Venue, environ=environ)
    file.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        load_section("kraken", Venue, environ=environ)


def test_a_secret_may_be_in_the_keyring(
    write: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring = pytest.importorskip("keyring")
    kept = {("kraken", "secret"): "hunter2"}
    monkeypatch.setattr(keyring, "get_password", lambda *place: kept.get(place))
    environ = write('[kraken]\napi_secret = "keyring:kraken/secret"\n')
    venue = load_section("kraken", Venue, environ=environ)
    assert venue.api_secret.reveal() == "hunter2"
    kept.clear()
    with pytest.raises(ConfigError, match="keyring set kraken secret"):
        load_section("kraken", Venue, environ=environ)


def test_tables_of_accounts_have_their_name(write: Writer) -> None:
    environ = write('[account.main]\nlive = true\nbroker = "kraken"\n')
    assert load_named("account", "main", AccountConfig, environ=environ).live
    assert not load_named("account", "other", AccountConfig, environ=environ).live
    environ["PIKER_ACCOUNT__OTHER__LIVE"] = "true"
    assert load_named("account", "other", AccountConfig, environ=environ).live


def test_limits_of_an_account_that_there_is_not_are_told(write: Writer) -> None:
    environ = write("[risk.papr]\nmax_order_size = 1\n")
    with pytest.raises(ConfigError, match=r"no account.*did you mean \[risk.paper\]"):
        load_named("risk", "paper", AccountConfig, environ=environ)
    environ = write("[account.main]\nlive = true\n[risk.main]\nlive = true\n")
    assert not load_named("risk", "paper", AccountConfig, environ=environ).live


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[account]\nlive = true\n", r"\[account.NAME\]"),
        ("account = 1\n", r"\[account.main\]"),
        ("[account.main]\nalive = true\n", "did you mean live"),
        ('[account.main]\nlive = "yes"\n', "bool"),
    ],
)
def test_tables_of_accounts_that_are_wrong(write: Writer, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_named("account", "main", AccountConfig, environ=write(text))
