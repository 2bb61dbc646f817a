from pathlib import Path

import pytest

from observe.errors import Misconfigured
from observe.settings import Settings, known_keys, load, variable


def test_defaults_are_one_machine(tmp_path: Path):
    settings = load(environ={}, options={"data": str(tmp_path)})
    assert settings.stream == f"local://{tmp_path}/stream"
    assert settings.store == f"chdb://{tmp_path}/store"
    assert settings.collect.otlp.grpc == "127.0.0.1:4317"


def test_options_beat_variables_and_variables_beat_the_file(tmp_path: Path):
    file = tmp_path / "observe.toml"
    file.write_text("[detect]\nsettle_s = 1\ncurrent_s = 20\nmin_requests = 7\n[alert]\nfor_s = 3\n")
    environ = {"OBSERVE_DETECT__SETTLE_S": "2", "OBSERVE_DETECT__CURRENT_S": "40", "HOME": "/"}
    settings = load(file, environ, {"detect.current_s": 50, "alert.for_s": None})
    assert (settings.detect.settle_s, settings.detect.current_s, settings.detect.min_requests) == (2, 50, 7)
    assert settings.alert.for_s == 3


def test_lists_and_librdkafka_properties_come_from_variables():
    settings = load(
        environ={
            "OBSERVE_ALERT__WEBHOOKS": '[{url = "http://pager/hook", format = "slack"}]',
            "OBSERVE_KAFKA__CLIENT__SECURITY_PROTOCOL": "SASL_SSL",
        }
    )
    assert settings.alert.webhooks[0].format == "slack"
    assert settings.kafka.client == {"security.protocol": "SASL_SSL"}


@pytest.mark.parametrize(
    ("environ", "options", "says"),
    [
        ({"OBSERVE_DETECT__SETLE_S": "1"}, {}, "did you mean OBSERVE_DETECT__SETTLE_S?"),
        ({}, {"detect.settel_s": 1}, "did you mean detect.settle_s?"),
        ({}, {"stream": "redis://x"}, "local://, kafka://"),
        ({}, {"store": "mysql://x"}, "chdb://, clickhouse://"),
        ({}, {"detect.settle_s": -1}, "detect.settle_s = -1"),
        ({}, {"detect.time_zone": "Mars/Base"}, "'Mars/Base' is no time zone"),
        ({"OBSERVE_DETECT": "3"}, {"detect.settle_s": 1}, "a section is needed"),
        ({"OBSERVE_ALERT__WEBHOOKS": '[{url = "ftp://x"}]'}, {}, "http:// or https://"),
        (
            {"OBSERVE_DETECT__RULES": '[{name = "r", measure = "error_ratio"}]'},
            {},
            "exactly one of `above` and `below`",
        ),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(environ, options, says):
    with pytest.raises(Misconfigured) as error:
        load(environ=environ, options=options)
    assert says in str(error.value)


def test_a_file_that_is_no_toml_is_named(tmp_path: Path):
    file = tmp_path / "observe.toml"
    file.write_text("stream = ")
    with pytest.raises(Misconfigured, match=r"observe\.toml"):
        load(file, {})


def test_every_key_has_a_variable_that_is_known():
    for key, _ in known_keys(Settings):
        assert variable(key).startswith("OBSERVE_")
        assert load(environ={}) is not None
