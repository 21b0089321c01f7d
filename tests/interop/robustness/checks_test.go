package robustness

import (
	"slices"
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

const lease = 7

func granted() report.ClientReport {
	return done(model.EtcdRequest{Type: model.LeaseGrant, LeaseGrant: &model.LeaseGrantRequest{LeaseID: lease}},
		model.EtcdResponse{Revision: 1, LeaseGrant: &model.LeaseGrantResponse{}})
}

func leased(given report.ClientReport) report.ClientReport {
	given.KeyValue[0].Input.(model.EtcdRequest).Txn.OperationsOnSuccess[0].Put.LeaseID = lease
	return given
}

func revoked(revision int64) report.ClientReport {
	ended := &model.LeaseRevokeRequest{LeaseID: lease}
	return done(model.EtcdRequest{Type: model.LeaseRevoke, LeaseRevoke: ended},
		model.EtcdResponse{Revision: revision, LeaseRevoke: &model.LeaseRevokeResponse{}})
}

func failed(given report.ClientReport) report.ClientReport {
	given.KeyValue[0].Output = model.MaybeEtcdResponse{Error: "context deadline exceeded"}
	return given
}

func deletes(key string) model.EtcdOperation {
	return model.EtcdOperation{Type: model.DeleteOperation, Delete: model.DeleteOptions{Key: key}}
}

// judged: what the suite says of requests that came one after the other, and of what a watch has seen.
func judged(t *testing.T, given []report.ClientReport, events ...model.WatchEvent) error {
	for number := range given {
		operation := &given[number].KeyValue[0]
		operation.ClientId, operation.Call, operation.Return = number, int64(2*number+1), int64(2*number+2)
	}
	given = append(given, watched(events...))
	requests, err := persisted(given)
	require.NoError(t, err)
	lg := zaptest.NewLogger(t)
	found := validate.ValidateAndReturnVisualize(lg, validate.Config{}, given, requests, time.Minute)
	return found.Linearization.Error()
}

func read(key string, revision int64, found ...model.KeyValue) report.ClientReport {
	asked := &model.RangeRequest{RangeOptions: model.RangeOptions{Start: key}}
	return done(model.EtcdRequest{Type: model.Range, Range: asked}, model.EtcdResponse{Revision: revision,
		Range: &model.RangeResponse{KVs: append([]model.KeyValue{}, found...), Count: int64(len(found))}})
}

// What it puts says that a transaction was not done, though a lease's end deleted what it was to delete.
func TestOfAnUnknownTransaction(t *testing.T) {
	unknown := failed(put("c", "3", 0))
	txn := unknown.KeyValue[0].Input.(model.EtcdRequest).Txn
	txn.OperationsOnSuccess = append(txn.OperationsOnSuccess, deletes("a"))
	require.NoError(t, judged(t, []report.ClientReport{
		read("a", 1), granted(), leased(put("a", "1", 2)), revoked(3), unknown, put("b", "2", 4), put("d", "4", 5),
	}, event(model.PutOperation, "a", "1", 2), event(model.DeleteOperation, "a", "", 3),
		event(model.PutOperation, "b", "2", 4), event(model.PutOperation, "d", "4", 5)))
}

// A lease's end deletes the same key before: an unknown delete has not ended by then.
func TestOfAnUnknownDeleteAfterALeasesEnd(t *testing.T) {
	ends := map[string]report.ClientReport{"answered": revoked(3), "unknown": failed(revoked(3))}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			unknown := failed(put("a", "", 0))
			txn := unknown.KeyValue[0].Input.(model.EtcdRequest).Txn
			txn.OperationsOnSuccess = []model.EtcdOperation{deletes("a")}
			require.NoError(t, judged(t, []report.ClientReport{
				read("a", 1), granted(), leased(put("a", "1", 2)), end, put("a", "2", 4), unknown, put("b", "3", 6),
			}, event(model.PutOperation, "a", "1", 2), event(model.DeleteOperation, "a", "", 3),
				event(model.PutOperation, "a", "2", 4), event(model.DeleteOperation, "a", "", 5),
				event(model.PutOperation, "b", "3", 6)))
		})
	}
}

// Of two keys under a lease a delete takes one, and the lease's end both.
func TestOfADeleteUnderALease(t *testing.T) {
	events := []model.WatchEvent{event(model.PutOperation, "a", "1", 2), event(model.PutOperation, "b", "2", 3),
		event(model.DeleteOperation, "a", "", 4)}
	both := []report.ClientReport{read("a", 1), granted(), leased(put("a", "1", 2)), leased(put("b", "2", 3))}
	txn := put("a", "", 4)
	txn.KeyValue[0].Input.(model.EtcdRequest).Txn.OperationsOnSuccess[0] = deletes("a")
	txn.KeyValue[0].Output.(model.MaybeEtcdResponse).Txn.Results[0].Deleted = 1
	value := model.ValueRevision{Value: model.ToValueOrHash("2"), ModRevision: 3, Version: 1}
	there := read("b", 4, model.KeyValue{Key: "b", ValueRevision: value})
	require.NoError(t, judged(t, append(slices.Clone(both), txn, there), events...))
	require.ErrorContains(t, judged(t, append(slices.Clone(both), revoked(4), there), events...), "illegal")
}
