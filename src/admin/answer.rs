//! What the administrator's listener answers, and the layers around it.

use std::any::Any;
use std::convert::Infallible;
use std::future::ready;
use std::time::Duration;

use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceBuilder, service_fn};
use tower_http::body::UnsyncBoxBody;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;

use super::socket::Who;
use super::{Desk, State};
use crate::body::Body;
use crate::clock;
use crate::observe::{Observe, metrics};

/// How long an answer may take to make.
const PATIENCE: Duration = Duration::from_secs(5);
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// The service with its layers around it.
pub(super) type Stack =
    BoxCloneSyncService<Request<Incoming>, Response<UnsyncBoxBody<bytes::Bytes, BoxError>>, Infallible>;

/// Outside in: headers on every answer, a panic becomes a 500, an answer that takes too long a 503.
pub(super) fn stack(desk: Desk, who: Who) -> Stack {
    let answer = service_fn(move |request: Request<Incoming>| {
        let response = answer(&request, &desk, who);
        ready(Ok::<_, Infallible>(response))
    });
    let service = ServiceBuilder::new()
        .layer(header(X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(header(X_FRAME_OPTIONS, "DENY"))
        .layer(header(CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"))
        .layer(header(REFERRER_POLICY, "no-referrer"))
        .layer(header(CACHE_CONTROL, "no-store"))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, PATIENCE))
        .service(answer);
    BoxCloneSyncService::new(service)
}

fn header(name: HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value))
}

fn answer(request: &Request<Incoming>, desk: &Desk, who: Who) -> Response<Body> {
    let (method, path) = (request.method(), request.uri().path());
    let found = match path {
        "/metrics" => metrics_page(&desk.observe),
        "/-/healthz" => text(StatusCode::OK, "alive\n"),
        "/-/readyz" => ready_page(desk.readiness.state()),
        "/-/bans" | "/-/install-tool" => return counter(request, desk, who),
        _ => {
            return text(
                StatusCode::NOT_FOUND,
                "Here are /metrics, /-/healthz, /-/readyz, /-/bans and /-/install-tool.\n",
            );
        }
    };
    if matches!(*method, Method::GET | Method::HEAD) {
        return found;
    }
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD are served here.\n");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

/// Only for whom the kernel vouches: a port can be reached by whoever makes TYPO3 ask for an address of his choice.
fn counter(request: &Request<Incoming>, desk: &Desk, who: Who) -> Response<Body> {
    if !who.is_trusted() {
        return text(
            StatusCode::FORBIDDEN,
            "Bans are listed and changed over the unix socket alone: `[admin] listen = \"unix:…\"`.\n",
        );
    }
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    let answer = (desk.bans)().answer(request.method(), path, query, &who.to_string(), clock::millis());
    match answer {
        Some(answer) => page_of(answer.status, if answer.json { JSON } else { TEXT }, answer.text),
        None => text(StatusCode::NOT_FOUND, "There is nothing here.\n"),
    }
}

fn metrics_page(observe: &Observe) -> Response<Body> {
    match observe.metrics() {
        Ok(page) => page_of(StatusCode::OK, metrics::CONTENT_TYPE, page),
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "The metrics could not be written.\n"),
    }
}

fn ready_page(state: State) -> Response<Body> {
    match state {
        State::Ready => text(StatusCode::OK, "ready\n"),
        State::Starting => text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        State::Draining => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}

fn panicked(_: Box<dyn Any + Send + 'static>) -> Response<Body> {
    // The panic hook has said where and why; the client need not know.
    text(StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong.\n")
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    page_of(status, TEXT, text)
}

fn page_of(status: StatusCode, kind: &'static str, body: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The layers are ours to get wrong: around a service that panics, the answer is a hardened 500.
    #[tokio::test]
    async fn a_panic_answers_500() {
        use tower::ServiceExt as _;
        let service = ServiceBuilder::new()
            .layer(header(X_FRAME_OPTIONS, "DENY"))
            .layer(CatchPanicLayer::custom(panicked))
            .service(service_fn(|_: Request<()>| async {
                assert!(Method::GET == Method::POST, "a test of panics");
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }));
        let response = service.oneshot(Request::new(())).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()[X_FRAME_OPTIONS], "DENY");
    }
}
