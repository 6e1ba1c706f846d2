from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from prometheus_client.parser import text_string_to_metric_families

from shared.web.metrics import Metrics

CPU: dict[str, str | int] = {"device": "cpu"}


def samples(metrics: Metrics, device: dict[str, str | int] = CPU) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels, in the order of the labels' names."""
    content, content_type = metrics.exposition(2, 3, device)
    assert content_type.startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(content.decode())
    return {
        (each.name, *(value for _, value in sorted(each.labels.items()))): each.value
        for family in families
        for each in family.samples
    }


def test_a_process_that_has_answered_nothing_says_so() -> None:
    found = samples(Metrics())
    assert found == {("thinlens_requests_at_work",): 2, ("thinlens_requests_waiting",): 3}


def test_a_gpus_memory_is_told_where_it_is_known() -> None:
    found = samples(Metrics(), {"device": "cuda:1", "name": "A GPU", "total_bytes": 80, "used_bytes": 7})
    memory = "thinlens_device_memory_bytes"
    assert (found[memory, "cuda:1", "total"], found[memory, "cuda:1", "used"]) == (80, 7)


def test_predictions_made_instead_of_the_model_server_are_counted() -> None:
    metrics = Metrics()
    metrics.count_fallback("own", "server_timeout")
    assert samples(metrics)["thinlens_fallbacks_total", "server_timeout", "own"] == 1


def test_replies_are_counted_by_route_status_and_code() -> None:
    metrics = Metrics()
    for _ in range(2):
        metrics.count("/predict", 200, "", 0.02)
    metrics.count("/predict", 415, "not_an_image", 0.001)
    found = samples(metrics)
    assert found["thinlens_replies_total", "", "/predict", "200"] == 2
    assert found["thinlens_replies_total", "not_an_image", "/predict", "415"] == 1


def test_times_fall_in_their_buckets() -> None:
    metrics = Metrics()
    for seconds in (0.004, 0.005, 0.006, 100.0):
        metrics.count("/predict", 200, "", seconds)
    found = samples(metrics)
    buckets = [found["thinlens_reply_seconds_bucket", bound, "/predict"] for bound in ("0.005", "0.01", "30.0", "+Inf")]
    assert buckets == [2, 3, 3, 4]
    assert found["thinlens_reply_seconds_count", "/predict"] == 4
    assert found["thinlens_reply_seconds_sum", "/predict"] == 100.015


def test_stages_and_cold_starts_are_counted_by_model() -> None:
    metrics = Metrics()
    metrics.count_prediction("m", {"decode": 2.0, "infer": 20.0}, cold=True)
    metrics.count_prediction("m", {"decode": 2.0}, cold=False)
    found = samples(metrics)
    assert found["thinlens_cold_starts_total", "m"] == 1
    assert found["thinlens_stage_seconds_count", "m", "decode"] == 2
    assert found["thinlens_stage_seconds_sum", "m", "infer"] == 0.02


def test_labels_of_any_characters_are_escaped() -> None:
    metrics = Metrics()
    metrics.count('/a"b\\c\n', 200, "", 0.1)
    assert samples(metrics)["thinlens_replies_total", "", '/a"b\\c\n', "200"] == 1


def test_no_count_is_lost_between_threads() -> None:
    metrics = Metrics()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: metrics.count("/", 200, "", 0.1), range(2000)))
    assert samples(metrics)["thinlens_replies_total", "", "/", "200"] == 2000
