package robustness

import (
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zaptest"

	"go.etcd.io/etcd/tests/v3/robustness/model"
	"go.etcd.io/etcd/tests/v3/robustness/report"
	"go.etcd.io/etcd/tests/v3/robustness/validate"
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

func done(request model.EtcdRequest, response model.EtcdResponse) report.ClientReport {
	return report.ClientReport{KeyValue: []porcupine.Operation{{
		Input: request, Output: model.MaybeEtcdResponse{EtcdResponse: response},
	}}}
}

// What it puts says that a transaction was not done, though a lease's end deleted what it was to delete.
func TestOfAnUnknownTransaction(t *testing.T) {
	const lease = 7
	read := &model.RangeRequest{RangeOptions: model.RangeOptions{Start: "a"}}
	start := done(model.EtcdRequest{Type: model.Range, Range: read},
		model.EtcdResponse{Revision: 1, Range: &model.RangeResponse{KVs: []model.KeyValue{}}})
	grant, revoke := &model.LeaseGrantRequest{LeaseID: lease}, &model.LeaseRevokeRequest{LeaseID: lease}
	granted := done(model.EtcdRequest{Type: model.LeaseGrant, LeaseGrant: grant},
		model.EtcdResponse{Revision: 1, LeaseGrant: &model.LeaseGrantResponse{}})
	leased := put("a", "1", 2)
	leased.KeyValue[0].Input.(model.EtcdRequest).Txn.OperationsOnSuccess[0].Put.LeaseID = lease
	unknown := put("c", "3", 0)
	unknown.KeyValue[0].Output = model.MaybeEtcdResponse{Error: "context deadline exceeded"}
	txn := unknown.KeyValue[0].Input.(model.EtcdRequest).Txn
	txn.OperationsOnSuccess = append(txn.OperationsOnSuccess,
		model.EtcdOperation{Type: model.DeleteOperation, Delete: model.DeleteOptions{Key: "a"}})
	revoked := done(model.EtcdRequest{Type: model.LeaseRevoke, LeaseRevoke: revoke},
		model.EtcdResponse{Revision: 3, LeaseRevoke: &model.LeaseRevokeResponse{}})
	given := []report.ClientReport{start, granted, leased, revoked, unknown, put("b", "2", 4), put("d", "4", 5)}
	for number := range given {
		operation := &given[number].KeyValue[0]
		operation.ClientId, operation.Call, operation.Return = number, int64(2*number+1), int64(2*number+2)
	}
	given = append(given, watched(event(model.PutOperation, "a", "1", 2),
		event(model.DeleteOperation, "a", "", 3), event(model.PutOperation, "b", "2", 4),
		event(model.PutOperation, "d", "4", 5)))
	requests, err := persisted(given)
	require.NoError(t, err)
	lg := zaptest.NewLogger(t)
	found := validate.ValidateAndReturnVisualize(lg, validate.Config{}, given, requests, time.Minute)
	require.NoError(t, found.Linearization.Error())
}
