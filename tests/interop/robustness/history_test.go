// The suite reads from etcd's WAL what was written. Here it is what watches of all keys have seen.

package robustness

import (
	"fmt"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"

	"go.etcd.io/etcd/tests/v3/robustness/model"
	"go.etcd.io/etcd/tests/v3/robustness/report"
)

// history has the events of every revision.
type history map[int64][]model.WatchEvent

// persisted says what was written, revision by revision. It is an error if watches contradict each other, if
// none of them has seen a revision, or if one is not what its writer was answered.
func persisted(reports []report.ClientReport) ([]model.EtcdRequest, error) {
	seen := history{}
	for _, client := range reports {
		for _, watch := range client.Watch {
			if watch.Request.Key == "" && watch.Request.WithPrefix {
				if err := seen.take(watch); err != nil {
					return nil, fmt.Errorf("watch of client %d: %w", client.ClientID, err)
				}
			}
		}
	}
	last := report.OperationsMaxRevision(reports)
	leased := leasesOf(reports)
	requests := make([]model.EtcdRequest, 0, len(seen))
	for revision := int64(2); revision <= last; revision++ {
		events, found := seen[revision]
		if !found && compacted(reports, revision) {
			return nil, fmt.Errorf("each watch of all keys came behind a compaction of revision %d", revision)
		}
		if !found {
			return nil, fmt.Errorf("no watch of all keys has seen revision %d of %d", revision, last)
		}
		requests = append(requests, leased.written(revision, events))
	}
	if len(requests) != len(seen) {
		return nil, fmt.Errorf("watches have seen %d revisions, clients %d", len(seen), len(requests))
	}
	requests = append(leased.granted(), requests...)
	for _, client := range reports {
		for _, operation := range client.KeyValue {
			request := operation.Input.(model.EtcdRequest)
			failure := operation.Output.(model.MaybeEtcdResponse).Error
			if request.Type == model.Compact && failure != "" && !strings.Contains(failure, "required revision") {
				requests = append(requests, request) // no watch says whether it was done, nor when
			}
			if err := seen.acknowledged(operation); err != nil {
				return nil, fmt.Errorf("client %d: %w", client.ClientID, err)
			}
		}
	}
	return requests, nil
}

// compacted: each watch that might have seen a revision was told that it is compacted. A cluster that is killed
// whole on a full machine serves those who write and compact a second before those who watch.
func compacted(reports []report.ClientReport, revision int64) bool {
	watches := 0
	for _, client := range reports {
		for _, watch := range client.Watch {
			if watch.Request.Key != "" || !watch.Request.WithPrefix || watch.Request.Revision > revision {
				continue
			}
			watches++
			told := false
			for _, response := range watch.Responses {
				if len(response.Events) > 0 && response.Events[len(response.Events)-1].Revision >= revision ||
					response.IsProgressNotify && response.Revision >= revision {
					return false // it has passed by
				}
				told = told || strings.Contains(response.Error, "required revision has been compacted")
			}
			if !told {
				return false
			}
		}
	}
	return watches > 0
}

// take adds what one watch has seen.
func (h history) take(watch model.WatchOperation) error {
	own := history{}
	for _, response := range watch.Responses {
		for _, event := range response.Events {
			event.PrevValue = nil // not all watches ask for it
			own[event.Revision] = append(own[event.Revision], event)
		}
	}
	for revision, events := range own {
		if known, found := h[revision]; found && !slices.Equal(known, events) {
			return fmt.Errorf("at revision %d it has %+v, another %+v", revision, events, known)
		}
		h[revision] = events
	}
	return nil
}

// leases tells the ends of leases from deletes. etcd's WAL says which is which, and watches do not. A revoke
// that counts as a delete lets a later delete of the same key end before it began.
type leases struct {
	puts     map[model.PutOptions]int64 // the lease that each value was put under
	revoked  map[int64]int64            // the revision that a revoke was answered with, or unknown
	deleted  map[int64]bool             // revisions at which a transaction is known to have deleted keys
	attached map[string]int64           // each key's lease, as of the last revision looked at
}

const unknown = -1

func leasesOf(reports []report.ClientReport) leases {
	found := leases{map[model.PutOptions]int64{}, map[int64]int64{}, map[int64]bool{}, map[string]int64{}}
	for _, client := range reports {
		for _, operation := range client.KeyValue {
			request, response := operation.Input.(model.EtcdRequest), operation.Output.(model.MaybeEtcdResponse)
			switch request.Type {
			case model.LeaseRevoke:
				if response.Error == "" {
					found.revoked[request.LeaseRevoke.LeaseID] = response.Revision
				} else if found.revoked[request.LeaseRevoke.LeaseID] == 0 {
					found.revoked[request.LeaseRevoke.LeaseID] = unknown
				}
			case model.Txn:
				for _, asked := range request.Txn.AllOperations() {
					if asked.Put.LeaseID != 0 {
						found.puts[model.PutOptions{Key: asked.Put.Key, Value: asked.Put.Value}] = asked.Put.LeaseID
					}
				}
				if response.Error == "" && response.Txn != nil {
					for _, result := range response.Txn.Results {
						found.deleted[response.Revision] = found.deleted[response.Revision] || result.Deleted > 0
					}
				}
			}
		}
	}
	return found
}

// granted: the leases that keys were put under, as if all were there from the beginning.
func (l leases) granted() (requests []model.EtcdRequest) {
	known := map[int64]bool{}
	for _, lease := range l.puts {
		if !known[lease] {
			grant := &model.LeaseGrantRequest{LeaseID: lease}
			requests = append(requests, model.EtcdRequest{Type: model.LeaseGrant, LeaseGrant: grant})
		}
		known[lease] = true
	}
	return requests
}

// written is a request that does what the events of a revision say. Revisions are asked for in their order.
func (l leases) written(revision int64, events []model.WatchEvent) model.EtcdRequest {
	if lease := l.revokedBy(revision, events); lease != 0 {
		for _, event := range events {
			delete(l.attached, event.Key)
		}
		revoke := &model.LeaseRevokeRequest{LeaseID: lease}
		return model.EtcdRequest{Type: model.LeaseRevoke, LeaseRevoke: revoke}
	}
	operations := make([]model.EtcdOperation, 0, len(events))
	for _, event := range events {
		operation := model.EtcdOperation{Type: event.Type}
		switch event.Type {
		case model.PutOperation:
			operation.Put = model.PutOptions{Key: event.Key, Value: event.Value}
			operation.Put.LeaseID = l.puts[operation.Put]
			l.attached[event.Key] = operation.Put.LeaseID
		case model.DeleteOperation:
			operation.Delete = model.DeleteOptions{Key: event.Key}
			delete(l.attached, event.Key)
		}
		operations = append(operations, operation)
	}
	return model.EtcdRequest{Type: model.Txn, Txn: &model.TxnRequest{OperationsOnSuccess: operations}}
}

// revokedBy is the lease whose revoke a revision is, or 0. A revoke deletes its lease's keys, all and only them.
func (l leases) revokedBy(revision int64, events []model.WatchEvent) int64 {
	lease := l.attached[events[0].Key]
	if at := l.revoked[lease]; lease == 0 || l.deleted[revision] || at != revision && at != unknown {
		return 0
	}
	for _, event := range events {
		if event.Type != model.DeleteOperation || l.attached[event.Key] != lease {
			return 0
		}
	}
	held := 0
	for _, other := range l.attached {
		if other == lease {
			held++
		}
	}
	if held != len(events) {
		return 0
	}
	return lease
}

// acknowledged: a write that was answered has the events of its revision.
func (h history) acknowledged(operation porcupine.Operation) error {
	request, response := operation.Input.(model.EtcdRequest), operation.Output.(model.MaybeEtcdResponse)
	if request.Type != model.Txn || response.Error != "" || response.Txn == nil {
		return nil
	}
	branch := request.Txn.OperationsOnSuccess
	if response.Txn.Failure {
		branch = request.Txn.OperationsOnFailure
	}
	events, writes := h[response.Revision], 0
	for i, asked := range branch {
		var key string
		switch {
		case asked.Type == model.PutOperation:
			key = asked.Put.Key
		case asked.Type == model.DeleteOperation && response.Txn.Results[i].Deleted > 0:
			key = asked.Delete.Key
		default:
			continue
		}
		writes++
		if !slices.ContainsFunc(events, func(event model.WatchEvent) bool {
			return event.Type == asked.Type && event.Key == key && event.Value == asked.Put.Value
		}) {
			return fmt.Errorf("%+v was answered with revision %d, which has %+v",
				asked, response.Revision, events)
		}
	}
	if writes > 0 && writes != len(events) {
		return fmt.Errorf("%d writes were answered with revision %d, which has %+v",
			writes, response.Revision, events)
	}
	return nil
}
