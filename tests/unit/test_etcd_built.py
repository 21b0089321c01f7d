"""How parts of etcd's own tests give way to what starts muster in their place."""

from __future__ import annotations

from tests.interop.etcd.built import MEMBERS, without

OURS = """package integration

func New(t testing.TB) int {
	return 2
}

func (m *Member) Launch() error {
	return nil
}
"""
KEPT = """
func (c *Cluster) Launch() {
	fmt.Println(types.ID(1))
}
"""
REPLACED = """
func New(t testing.TB) int {
	return os.Getpid()
}

func (m *Member) Launch() error {
	if own.Started(m) {
		return raft.None
	}
	return nil
}
"""
IMPORTS = 'package integration\n\nimport (\n\t"fmt"\n{}\n\t"go.etcd.io/types"\n)\n'
UNUSED = '\t"os"\n\n\town "go.etcd.io/etcd/server"\n\t"go.etcd.io/raft/v3"'
LINES = "".join(f"\n// {old}" for old in MEMBERS)


def test_functions_that_are_ours_go_and_so_do_imports_that_were_for_them_alone() -> None:
    found = without(IMPORTS.format(UNUSED) + KEPT + REPLACED + LINES, OURS)
    assert found.startswith(IMPORTS.format("") + KEPT)
    for words in ("Getpid", "Started", "(m *Member)", "func New"):
        assert words not in found
    for new in MEMBERS.values():
        assert new in found
