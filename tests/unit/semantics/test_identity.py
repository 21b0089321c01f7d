"""IDs against those that etcd itself printed."""

from hashlib import sha1

from cluster.members.identity import added_member_id, cluster_id, member_id


def test_a_single_member_with_the_default_token() -> None:
    member = member_id(["http://localhost:2380"], "etcd-cluster")
    assert f"{member:x}" == "8e9e05c52164694d"
    assert f"{cluster_id([member]):x}" == "cdf818194e3a8c32"


def test_three_members_in_any_order() -> None:
    members = [member_id([f"http://127.0.0.1:2380{i}"], "etcd-cluster-1") for i in range(3)]
    assert [f"{m:x}" for m in members] == ["7b5a8be93824acf5", "2abecb6143ceca2c", "ef48f5673c3497fa"]
    assert f"{cluster_id(members):x}" == f"{cluster_id(reversed(members)):x}" == "27949674065375ef"


def test_the_order_of_a_members_urls_does_not_count() -> None:
    urls = ["http://10.0.0.2:2380", "http://10.0.0.1:2380"]
    assert member_id(urls, "t") == member_id(urls[::-1], "t")
    assert member_id(urls, "t") != member_id(urls, "u")


def test_an_added_member_depends_on_the_time() -> None:
    urls = ["http://10.0.0.1:2380"]
    assert added_member_id(urls, 1_700_000_000) != added_member_id(urls, 1_700_000_001)
    assert added_member_id(urls, 1_700_000_000) == member_id(urls, "1700000000")


def test_a_token_of_any_bytes() -> None:
    assert member_id(["http://a:1"], "\udcff") == int.from_bytes(sha1(b"http://a:1\xff").digest()[:8], "big")
