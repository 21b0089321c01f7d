package robustness

import (
	"testing"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"go.etcd.io/etcd/tests/v3/robustness/model"
	"go.etcd.io/etcd/tests/v3/robustness/report"
)

func event(kind model.OperationType, key, value string, revision int64) (found model.WatchEvent) {
	found.Type, found.Key, found.Value, found.Revision = kind, key, model.ToValueOrHash(value), revision
	return found
}

func watched(events ...model.WatchEvent) report.ClientReport {
	return report.ClientReport{Watch: []model.WatchOperation{{
		Request:   model.WatchRequest{WithPrefix: true, Revision: 1},
		Responses: []model.WatchResponse{{Events: events}},
	}}}
}

func ended(events ...model.WatchEvent) report.ClientReport {
	found := watched(events...)
	last := model.WatchResponse{Error: "etcdserver: mvcc: required revision has been compacted"}
	found.Watch[0].Responses = append(found.Watch[0].Responses, last)
	return found
}

func put(key, value string, revision int64) report.ClientReport {
	options := model.PutOptions{Key: key, Value: model.ToValueOrHash(value)}
	return report.ClientReport{KeyValue: []porcupine.Operation{{
		Input: model.EtcdRequest{Type: model.Txn, Txn: &model.TxnRequest{
			OperationsOnSuccess: []model.EtcdOperation{{Type: model.PutOperation, Put: options}},
		}},
		Output: model.MaybeEtcdResponse{EtcdResponse: model.EtcdResponse{
			Revision: revision, Txn: &model.TxnResponse{Results: make([]model.EtcdOperationResult, 1)},
		}},
	}}}
}

func TestHistory(t *testing.T) {
	a, b := event(model.PutOperation, "a", "1", 2), event(model.PutOperation, "b", "2", 3)
	later := event(model.PutOperation, "c", "4", 4)
	gone := event(model.DeleteOperation, "a", "", 3)
	type reports = []report.ClientReport
	for name, given := range map[string]struct {
		reports reports
		fault   string
	}{
		"all is there":                 {reports{watched(a, b), put("a", "1", 2), put("b", "2", 3)}, ""},
		"each has seen a part":         {reports{watched(a), watched(b), put("b", "2", 3)}, ""},
		"none has seen a revision":     {reports{watched(b), put("b", "2", 3)}, "no watch"},
		"all came behind a compaction": {reports{ended(a), ended(a), put("c", "4", 4)}, "behind a compaction"},
		"one passed it by before":      {reports{ended(a), ended(a, later), put("c", "4", 4)}, "no watch"},
		"one was not told":             {reports{ended(a), watched(a), put("c", "4", 4)}, "no watch"},
		"the last write is nowhere":    {reports{watched(a), put("b", "2", 3)}, "no watch"},
		"they contradict each other":   {reports{watched(a, b), watched(a, gone), put("b", "2", 3)}, "other"},
		"another value than answered":  {reports{watched(a, b), put("b", "3", 3)}, "was answered"},
		"more than was asked":          {reports{watched(a, b, gone), put("b", "2", 3)}, "1 writes"},
		"a revision after all answers": {reports{watched(a, b), put("a", "1", 2)}, "watches have seen"},
	} {
		t.Run(name, func(t *testing.T) {
			requests, err := persisted(given.reports)
			if given.fault != "" {
				require.ErrorContains(t, err, given.fault)
				return
			}
			require.NoError(t, err)
			require.Len(t, requests, 2)
			require.Equal(t, "b", model.NewReplay(requests).Events[1].Key)
		})
	}
}
