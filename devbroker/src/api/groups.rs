use std::time::{Duration, Instant};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    BrokerId, DescribeGroupsRequest, DescribeGroupsResponse, FindCoordinatorRequest, FindCoordinatorResponse, GroupId,
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    ListGroupsResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse,
    SyncGroupRequest, SyncGroupResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{Context, NODE_ID, code, text};
use crate::groups::{Committed, Join, Joined, Poll};

/// A round lasts as long as its slowest member may take; after this a client asks again.
const MAX_WAIT: Duration = Duration::from_secs(600);

pub fn find_coordinator(c: Context<'_>, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    const GROUP: i8 = 0;
    let (host, port) = (text(c.local.ip().to_string()), i32::from(c.local.port()));
    // Transactions are refused for good, as "not available" would be asked again for ever.
    let found =
        if request.key_type == GROUP { Ok(NODE_ID) } else { Err(ResponseError::TransactionalIdAuthorizationFailed) };
    let message = found.is_err().then(|| StrBytes::from_static_str("the development broker coordinates groups alone"));
    let node = *found.as_ref().unwrap_or(&BrokerId(-1));
    if c.version >= 4 {
        let coordinator = |key| {
            Coordinator::default()
                .with_key(key)
                .with_node_id(node)
                .with_host(host.clone())
                .with_port(port)
                .with_error_code(code(&found))
                .with_error_message(message.clone())
        };
        let all = request.coordinator_keys.into_iter().map(coordinator).collect();
        return FindCoordinatorResponse::default().with_coordinators(all);
    }
    FindCoordinatorResponse::default()
        .with_error_code(code(&found))
        .with_error_message(message)
        .with_node_id(node)
        .with_host(host)
        .with_port(port)
}

fn millis(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// Waits until `poll` has an answer.
async fn wait<T>(c: Context<'_>, mut poll: impl FnMut() -> Poll<T>) -> Result<T, ResponseError> {
    let mut changes = c.broker.groups.changes();
    let waiting = async {
        loop {
            changes.borrow_and_update();
            if let Some(done) = poll()? {
                return Ok(done);
            }
            if changes.changed().await.is_err() {
                return Err(ResponseError::CoordinatorNotAvailable);
            }
        }
    };
    tokio::select! {
        () = c.broker.stop.cancelled() => Err(ResponseError::CoordinatorNotAvailable),
        done = tokio::time::timeout(MAX_WAIT, waiting) => done.unwrap_or(Err(ResponseError::RebalanceInProgress)),
    }
}

pub async fn join(c: Context<'_>, request: JoinGroupRequest) -> JoinGroupResponse {
    let group = request.group_id.as_str().to_owned();
    let member = if request.member_id.is_empty() {
        let id = format!("member-{}", Uuid::new_v4());
        // Newer clients are given the id first, so that a lost answer leaves no ghost in the group.
        if c.version >= 4 && request.group_instance_id.is_none() {
            return refused_join(ResponseError::MemberIdRequired).with_member_id(text(id));
        }
        id
    } else {
        request.member_id.as_str().to_owned()
    };
    let rebalance = if c.version >= 1 { request.rebalance_timeout_ms } else { request.session_timeout_ms };
    let join = Join {
        group: group.clone(),
        member: member.clone(),
        instance: request.group_instance_id,
        session: millis(request.session_timeout_ms),
        rebalance: millis(rebalance),
        protocol_type: request.protocol_type,
        protocols: request.protocols.into_iter().map(|p| (p.name, p.metadata)).collect(),
    };
    let joined = if group.is_empty() {
        Err(ResponseError::InvalidGroupId)
    } else {
        match c.broker.groups.join(join, Instant::now()) {
            Ok(before) => wait(c, || c.broker.groups.poll_join(&group, &member, before)).await,
            Err(error) => Err(error),
        }
    };
    match joined {
        Ok(joined) => accepted_join(c, joined).with_member_id(text(member)),
        Err(error) => refused_join(error).with_member_id(text(member)),
    }
}

fn accepted_join(c: Context<'_>, joined: Joined) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|(id, instance, metadata)| {
        let member = JoinGroupResponseMember::default().with_member_id(text(id)).with_metadata(metadata);
        member.with_group_instance_id(instance)
    });
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type((c.version >= 7).then_some(joined.protocol_type))
        .with_protocol_name(Some(joined.protocol))
        .with_leader(text(joined.leader))
        .with_members(members.collect())
}

fn refused_join(error: ResponseError) -> JoinGroupResponse {
    let response = JoinGroupResponse::default().with_error_code(error.code()).with_generation_id(-1);
    // Null is not allowed before version 7.
    response.with_protocol_name(Some(StrBytes::new()))
}

pub async fn sync(c: Context<'_>, request: SyncGroupRequest) -> SyncGroupResponse {
    let (group, member, generation) = (request.group_id, request.member_id, request.generation_id);
    let plan = request.assignments.into_iter().map(|a| (a.member_id, a.assignment)).collect();
    let synced = match c.broker.groups.sync(&group, &member, generation, plan, Instant::now()) {
        Ok(()) => wait(c, || c.broker.groups.poll_sync(&group, &member, generation)).await,
        Err(error) => Err(error),
    };
    let response = SyncGroupResponse::default().with_error_code(code(&synced));
    match synced {
        Ok((protocol_type, protocol, assignment)) => response
            .with_protocol_type(Some(protocol_type))
            .with_protocol_name(Some(protocol))
            .with_assignment(assignment),
        Err(_) => response,
    }
}

pub fn heartbeat(c: Context<'_>, request: HeartbeatRequest) -> HeartbeatResponse {
    let beat = c.broker.groups.heartbeat(&request.group_id, &request.member_id, request.generation_id, Instant::now());
    HeartbeatResponse::default().with_error_code(code(&beat))
}

pub fn leave(c: Context<'_>, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let now = Instant::now();
    if c.version <= 2 {
        let left = c.broker.groups.leave(&request.group_id, &request.member_id, now);
        return LeaveGroupResponse::default().with_error_code(code(&left));
    }
    let members = request.members.into_iter().map(|m| {
        let by_instance = m.group_instance_id.as_ref().filter(|_| m.member_id.is_empty());
        let id = match by_instance {
            Some(instance) => c.broker.groups.member_of_instance(&request.group_id, instance).unwrap_or_default(),
            None => m.member_id.as_str().to_owned(),
        };
        let left = c.broker.groups.leave(&request.group_id, &id, now);
        MemberResponse::default()
            .with_member_id(m.member_id)
            .with_group_instance_id(m.group_instance_id)
            .with_error_code(code(&left))
    });
    LeaveGroupResponse::default().with_members(members.collect())
}

pub fn offset_commit(c: Context<'_>, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let allowed = c.broker.groups.check_commit(
        &request.group_id,
        &request.member_id,
        request.generation_id_or_member_epoch,
        Instant::now(),
    );
    let topics = request.topics.into_iter().map(|t| {
        let topic = c.broker.store.topic(&t.name);
        let partitions = t.partitions.into_iter().map(|p| {
            let exists = topic.as_ref().is_some_and(|t| t.partition(p.partition_index).is_some());
            let committed = Committed {
                offset: p.committed_offset,
                metadata: p.committed_metadata.map(|m| m.as_str().to_owned()).unwrap_or_default(),
            };
            let done = match (&allowed, exists) {
                (Err(error), _) => Err(*error),
                (Ok(()), false) => Err(ResponseError::UnknownTopicOrPartition),
                (Ok(()), true) => c.broker.groups.commit(&request.group_id, &t.name, p.partition_index, committed),
            };
            let partition = OffsetCommitResponsePartition::default().with_partition_index(p.partition_index);
            partition.with_error_code(code(&done))
        });
        let partitions = partitions.collect();
        OffsetCommitResponseTopic::default().with_name(t.name.clone()).with_partitions(partitions)
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

pub fn offset_fetch(c: Context<'_>, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let all = |group: &GroupId| {
        let offsets = c.broker.groups.all_committed(group).into_iter();
        offsets.map(|(topic, partitions)| (TopicName(text(topic)), partitions)).collect::<Vec<_>>()
    };
    let find = |group: &GroupId, topic: &TopicName, partition: i32| {
        let found = c.broker.groups.committed(group, topic, partition);
        found.map_or((-1, StrBytes::new()), |f| (f.offset, text(f.metadata)))
    };
    if c.version >= 8 {
        let groups = request.groups.into_iter().map(|g| {
            let wanted = match g.topics {
                Some(topics) => topics.into_iter().map(|t| (t.name, t.partition_indexes)).collect(),
                None => all(&g.group_id),
            };
            let topics = wanted.into_iter().map(|(name, partitions)| {
                let partitions = partitions.into_iter().map(|p| {
                    let (offset, metadata) = find(&g.group_id, &name, p);
                    OffsetFetchResponsePartitions::default()
                        .with_partition_index(p)
                        .with_committed_offset(offset)
                        .with_committed_leader_epoch(-1)
                        .with_metadata(Some(metadata))
                });
                let partitions = partitions.collect();
                OffsetFetchResponseTopics::default().with_name(name.clone()).with_partitions(partitions)
            });
            let topics = topics.collect();
            OffsetFetchResponseGroup::default().with_group_id(g.group_id.clone()).with_topics(topics)
        });
        return OffsetFetchResponse::default().with_groups(groups.collect());
    }
    let group = request.group_id;
    let wanted = match request.topics {
        Some(topics) => topics.into_iter().map(|t| (t.name, t.partition_indexes)).collect(),
        None => all(&group),
    };
    let topics = wanted.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|p| {
            let (offset, metadata) = find(&group, &name, p);
            OffsetFetchResponsePartition::default()
                .with_partition_index(p)
                .with_committed_offset(offset)
                .with_committed_leader_epoch(-1)
                .with_metadata(Some(metadata))
        });
        let partitions = partitions.collect();
        OffsetFetchResponseTopic::default().with_name(name.clone()).with_partitions(partitions)
    });
    OffsetFetchResponse::default().with_topics(topics.collect())
}

pub fn describe(c: Context<'_>, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let known = c.broker.groups.describe();
    let groups = request.groups.into_iter().map(|id| {
        let group = DescribedGroup::default().with_authorized_operations(i32::MIN);
        let Some(info) = known.iter().find(|g| g.name == id.as_str()) else {
            return group.with_group_id(id).with_group_state(StrBytes::from_static_str("Dead"));
        };
        let members = info.members.iter().map(|(member, instance, metadata, assignment)| {
            DescribedGroupMember::default()
                .with_member_id(text(member.clone()))
                .with_group_instance_id(instance.clone())
                .with_member_metadata(metadata.clone())
                .with_member_assignment(assignment.clone())
        });
        group
            .with_group_id(id)
            .with_group_state(StrBytes::from_static_str(info.state))
            .with_protocol_type(info.protocol_type.clone())
            .with_protocol_data(info.protocol.clone())
            .with_members(members.collect())
    });
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

pub fn list(c: Context<'_>) -> ListGroupsResponse {
    let groups = c.broker.groups.describe().into_iter().map(|g| {
        ListedGroup::default()
            .with_group_id(GroupId(text(g.name)))
            .with_protocol_type(g.protocol_type)
            .with_group_state(StrBytes::from_static_str(g.state))
    });
    ListGroupsResponse::default().with_groups(groups.collect())
}
