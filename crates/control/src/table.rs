//! The API's paths, each said once: the handler, and from its types the document that describes it.
//!
//! [`Table::on`] takes a function from [`Asked`] to an answer. What it reads of the query and the body and what it
//! answers are types of that function, and the same types make its part of `/v1/openapi.json`, so the router and the
//! document cannot differ. What is no JSON (streams, pages, another's format) is told to [`Table::raw`] in words.

use crate::api::Refusal;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, RawPathParams, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{MethodFilter, MethodRouter, on};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::any::TypeId;
use std::collections::BTreeMap;
use std::error::Error;

/// Where the document's types lie in it.
const SCHEMAS: &str = "/components/schemas";

/// A query or a body of which nothing is read, or an answer with nothing in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Nothing {}

/// One request, taken apart.
#[derive(Debug)]
pub(crate) struct Asked<S, Q = Nothing, B = Nothing> {
    pub(crate) state: S,
    pub(crate) headers: HeaderMap,
    names: BTreeMap<String, String>,
    pub(crate) query: Q,
    pub(crate) body: B,
}

impl<S, Q, B> Asked<S, Q, B> {
    /// The part of the path that stands where the table has `{name}`.
    pub(crate) fn name(&self, name: &str) -> String {
        self.names.get(name).cloned().unwrap_or_default()
    }
}

/// What a path with a method is and does.
#[derive(Debug)]
struct Row {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    query: Vec<Value>,
    body: Option<Value>,
    /// The media type and, for JSON, the type of the answer.
    answer: (&'static str, Option<Value>),
}

/// Paths and their description, of one or more routers.
#[derive(Debug)]
pub(crate) struct Table<S = ()> {
    router: Router<S>,
    rows: Vec<Row>,
    types: SchemaGenerator,
}

impl<S: Clone + Send + Sync + 'static> Table<S> {
    pub(crate) fn new() -> Self {
        let mut settings = SchemaSettings::draft2020_12();
        settings.definitions_path = SCHEMAS.into();
        settings.meta_schema = None;
        Self { router: Router::new(), rows: Vec::new(), types: settings.into_generator() }
    }

    pub(crate) fn on<Q, B, A, F, Fut>(
        mut self,
        method: &Method,
        path: &'static str,
        summary: &'static str,
        handler: F,
    ) -> Self
    where
        Q: DeserializeOwned + JsonSchema + Send + 'static,
        B: DeserializeOwned + JsonSchema + Send + 'static,
        A: Serialize + JsonSchema + 'static,
        F: Fn(Asked<S, Q, B>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<A, Refusal>> + Send,
    {
        let takes_body = TypeId::of::<B>() != TypeId::of::<Nothing>();
        let served = move |state: State<S>,
                           headers: HeaderMap,
                           names: RawPathParams,
                           query: Result<Query<Q>, QueryRejection>,
                           body: Result<Bytes, BytesRejection>| {
            let handler = handler.clone();
            let names = names.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            async move {
                let asked = || -> Result<Asked<S, Q, B>, Refusal> {
                    let body = body.map_err(|error| Refusal::of_request(error.status(), error.source()))?;
                    let query = query.map_err(|error| Refusal::of_request(error.status(), error.source()))?.0;
                    let body = match (takes_body, body.is_empty()) {
                        // Nothing is read of a body that nobody expects, and an empty one says what is said by default.
                        (false, _) | (true, true) => read(b"{}"),
                        (true, false) => read(&body),
                    }?;
                    Ok(Asked { state: state.0, headers, names, query, body })
                };
                match asked() {
                    Ok(asked) => handler(asked).await.map(axum::Json).into_response(),
                    Err(refusal) => refusal.into_response(),
                }
            }
        };
        self.rows.push(Row {
            method: word(method),
            path,
            summary,
            query: query_of::<Q>(&mut self.types),
            body: takes_body.then(|| self.types.subschema_for::<B>().to_value()),
            answer: ("application/json", Some(self.types.subschema_for::<A>().to_value())),
        });
        self.router = self.router.route(path, on(filter(method), served));
        self
    }

    /// A path whose answer is no JSON document: its media type and words are all that is told.
    pub(crate) fn raw(
        mut self,
        method: &Method,
        path: &'static str,
        summary: &'static str,
        media: &'static str,
        served: MethodRouter<S>,
    ) -> Self {
        self.rows.push(Row {
            method: word(method),
            path,
            summary,
            query: Vec::new(),
            body: None,
            answer: (media, None),
        });
        self.router = self.router.route(path, served);
        self
    }

    pub(crate) fn layer_router(mut self, change: impl FnOnce(Router<S>) -> Router<S>) -> Self {
        self.router = change(self.router);
        self
    }

    pub(crate) fn with_state(self, state: S) -> Table {
        Table { router: self.router.with_state(state), rows: self.rows, types: self.types }
    }
}

impl Table {
    /// The paths of both.
    pub(crate) fn merge(mut self, mut other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.rows.append(&mut other.rows);
        self.types.definitions_mut().append(other.types.definitions_mut());
        self
    }

    /// The router, and the document that describes it.
    pub(crate) fn finish(mut self) -> (Router, Value) {
        let document = self.document();
        (self.router, document)
    }

    fn document(&mut self) -> Value {
        let mut paths: Map<String, Value> = Map::new();
        self.rows.sort_by_key(|row| (row.path, row.method));
        for row in &self.rows {
            let at = paths.entry(row.path).or_insert_with(|| json!({}));
            if let Some(at) = at.as_object_mut() {
                at.insert(row.method.to_owned(), row.described());
            }
        }
        let mut schemas = self.types.take_definitions(true);
        schemas.insert("Error".to_owned(), error_schema());
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "isobar",
                "version": "1",
                "description": "What a running isobar tells and does. On this machine no token is needed; from elsewhere `authorization: Bearer TOKEN`. Who wishes for a change says who they are with `x-isobar-user`.",
            },
            "security": [{}, {"token": []}],
            "paths": paths,
            "components": {
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
                "schemas": schemas,
            },
        })
    }
}

impl Row {
    fn described(&self) -> Value {
        let (media, schema) = &self.answer;
        let mut content = Map::new();
        content.insert(
            (*media).to_owned(),
            schema.as_ref().map_or_else(|| json!({}), |it| json!({"schema": it})),
        );
        let mut parameters: Vec<Value> = self
            .path
            .split('{')
            .skip(1)
            .filter_map(|rest| rest.split('}').next())
            .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
            .collect();
        parameters.extend(self.query.iter().cloned());
        let mut described = json!({"summary": self.summary});
        if !parameters.is_empty() {
            described["parameters"] = parameters.into();
        }
        if let Some(body) = &self.body {
            described["requestBody"] = json!({"content": {"application/json": {"schema": body}}});
        }
        described["responses"] = json!({
            "200": {"description": "Done", "content": content},
            "default": {
                "description": "Refused, and why",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        });
        described
    }
}

fn error_schema() -> Value {
    json!({
        "type": "object",
        "properties": {"error": {"type": "string", "description": "What is wrong, for a person."}},
        "required": ["error"],
    })
}

/// The fields of a query's type as parameters.
fn query_of<Q: JsonSchema>(types: &mut SchemaGenerator) -> Vec<Value> {
    let schema: Schema = Q::json_schema(types);
    let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let fields = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    fields
        .into_iter()
        .map(|(name, schema)| {
            let required = required.contains(&Value::from(name.as_str()));
            json!({"name": name, "in": "query", "required": required, "schema": schema})
        })
        .collect()
}

impl Refusal {
    /// Of a query or a body that could not even be read: what the framework found, in the one form of our answers.
    fn of_request(status: StatusCode, found: Option<&(dyn Error + 'static)>) -> Self {
        // The innermost says what it was, those around it only where it was found.
        let mut innermost = found;
        while let Some(inner) = innermost.and_then(|it| it.source()) {
            innermost = Some(inner);
        }
        let message = match (status, innermost) {
            (StatusCode::PAYLOAD_TOO_LARGE, _) => "the body is longer than this path takes".to_owned(),
            (StatusCode::BAD_REQUEST, Some(why)) => format!("the query is not what this path takes: {why}"),
            (_, why) => format!(
                "this cannot be read: {}",
                why.map_or_else(|| status.to_string(), |it| it.to_string())
            ),
        };
        Self { status: status.as_u16(), message }
    }
}

pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::wrong(format!("the body is not what this path takes: {error}")))
}

fn word(method: &Method) -> &'static str {
    match *method {
        Method::PUT => "put",
        Method::POST => "post",
        Method::DELETE => "delete",
        _ => "get",
    }
}

fn filter(method: &Method) -> MethodFilter {
    match *method {
        Method::PUT => MethodFilter::PUT,
        Method::POST => MethodFilter::POST,
        Method::DELETE => MethodFilter::DELETE,
        _ => MethodFilter::GET,
    }
}

/// Somebody's answer as the type that is promised for it. A promise that is broken is a mistake of ours, and said so.
pub(crate) fn promised<A: DeserializeOwned>(answer: Value) -> Result<A, Refusal> {
    serde_json::from_value(answer).map_err(|error| Refusal {
        status: StatusCode::INTERNAL_SERVER_ERROR.as_u16(),
        message: format!("the answer is not what /v1/openapi.json promises, a mistake of isobar's: {error}"),
    })
}

/// Any JSON: a document that is described elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Document(pub Value);
