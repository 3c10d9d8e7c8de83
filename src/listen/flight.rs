//! A response body that carries its request's ticket, so that the pulse knows when an answer is through.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::Response;

use super::pulse::Ticket;
use crate::body::{Body, BodyError};

/// A body in flight.
#[derive(Debug)]
pub(super) struct Flight {
    body: Body,
    ticket: Ticket,
    /// Whether it answers HEAD: hyper sends every body that is not at its end.
    to_head: bool,
}

/// The response of the road with its ticket on board.
pub(super) fn board(response: Response<Body>, mut ticket: Ticket, to_head: bool) -> Response<Flight> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        ticket.switches();
    }
    // hyper does not poll a body that is empty, nor one that answers HEAD.
    if to_head || response.body().is_end_stream() {
        ticket.complete();
    }
    response.map(|body| Flight { body, ticket, to_head })
}

impl HttpBody for Flight {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        match &frame {
            Poll::Pending => this.ticket.awaits_origin(),
            Poll::Ready(Some(Ok(_))) => {
                this.ticket.handed_over();
                if this.body.is_end_stream() {
                    this.ticket.complete();
                }
            }
            Poll::Ready(None | Some(Err(_))) => this.ticket.complete(),
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.to_head || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
