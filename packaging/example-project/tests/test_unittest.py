from __future__ import annotations

import unittest

from nightly import run_once

from muster.testing import Cluster


class RunOnce(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.cluster = cls.enterClassContext(Cluster())

    def setUp(self) -> None:
        self.cluster.clean()
        self.client = self.enterContext(self.cluster.client())

    def test_a_job_that_fails_runs_again(self) -> None:
        with self.assertRaises(ZeroDivisionError):
            run_once(self.client, "report", "1", lambda: 1 // 0)
        self.assertTrue(run_once(self.client, "report", "1", lambda: None))
